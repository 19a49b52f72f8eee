"""Cached files that were damaged, raced for, or cannot be had."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from invad.runtime.cache import cache_folder, keep, kept, key_of

CONTENT = bytes(range(256)) * 400


def zero_page(whole):
    return whole[:4096] + bytes(4096) + whole[8192:]


DAMAGES = {
    "truncated": lambda whole: whole[:-1],
    "empty": lambda whole: b"",
    "a page of zeros": zero_page,
    "zeros alone": lambda whole: bytes(len(whole)),
    "longer": lambda whole: whole + b"x",
    "one bit": lambda whole: whole[:-1] + bytes([whole[-1] ^ 1]),
    "digest alone": lambda whole: whole[:32],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_nothing_and_thrown_away(damage, tmp_path):
    path = tmp_path / key_of("a", 1)
    assert kept(path) is None
    keep(path, CONTENT)
    assert kept(path) == CONTENT
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    assert kept(path) is None
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_can_be_written_nothing_is_kept(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    if sys.platform == "linux":
        assert cache_folder("openvino") is None
    keep(tmp_path / "file" / "inside", CONTENT)
    keep(tmp_path / "not there" / "inside", CONTENT)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


HOMELESS = """
import os
from invad.runtime.cache import cache_folder
os.setgroups([]), os.setgid(54321), os.setuid(54321)
os.environ.pop("HOME", None), os.environ.pop("XDG_CACHE_HOME", None)
print(cache_folder("openvino"))
"""


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="only root can become another user")
def test_a_user_without_a_home_has_no_cache():
    done = subprocess.run([sys.executable, "-c", HOMELESS], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("None\n", "")


WRITER = """
import sys
from pathlib import Path
from invad.runtime.cache import keep
for i in range(60):
    keep(Path(sys.argv[1]), bytes([int(sys.argv[2])]) * 300_000)
"""


def test_two_processes_at_once_never_show_half_a_file(tmp_path):
    path = tmp_path / "graph.blob"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(i)]) for i in (1, 2)]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        content = kept(path)
        seen |= {content} if content else set()
    assert [writer.returncode for writer in writers] == [0, 0]
    assert seen <= {bytes([i]) * 300_000 for i in (1, 2)}
    assert kept(path) is not None
    assert [p.name for p in Path(tmp_path).iterdir()] == ["graph.blob"]
