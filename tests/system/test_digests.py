import hashlib

from invad.system.digests import PIECE, file_blake2, file_sha256, plain_sha256


def test_files_of_several_pieces(tmp_path):
    content = bytes(range(256)) * (PIECE // 256) + b"and a rest"
    (tmp_path / "a").write_bytes(content)
    assert file_sha256(tmp_path / "a") == hashlib.sha256(content).hexdigest()
    assert file_blake2(tmp_path / "a") == hashlib.blake2b(content, digest_size=16).hexdigest()


def test_plain_data_in_any_order_of_keys():
    digest = plain_sha256({"a": 1, "b": [2, None]})
    assert digest == plain_sha256({"b": [2, None], "a": 1}) != plain_sha256({"a": 1, "b": [2, 0]})
    assert digest == hashlib.sha256(b'{"a": 1, "b": [2, null]}').hexdigest()
