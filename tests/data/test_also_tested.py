from PIL import Image

from invad.data.check import also_tested
from invad.data.content import BLANK, pixel_digest, short_digests
from invad.data.datasets import load_dataset
from invad.data.images import read_image
from invad.observer import Silent


def test_test_images_that_were_trained_on_are_named(tmp_path, draw):
    for place, number in {"train/good/0": 0, "train/good/1": 1, "test/good/2": 2, "test/bad/3": 3}.items():
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw(number)).save(tmp_path / f"{place}.png")
    dataset = load_dataset(tmp_path)
    trained = short_digests([BLANK, *(pixel_digest(read_image(s.path)) for s in dataset.train)])
    assert [len(mark) for mark in trained] == [16, 16]
    assert list(also_tested(dataset, trained, Silent())) == []
    (tmp_path / "test/good/2.png").unlink()
    Image.fromarray(draw(1)).save(tmp_path / "test/good/again.bmp")
    (tmp_path / "test/good/broken.png").write_bytes(b"junk")
    (line,) = also_tested(load_dataset(tmp_path), trained, Silent())
    assert line.startswith(
        f"1 of 3 images of the test part, the first {tmp_path / 'test/good/again.bmp'}, has"
    )
    assert list(also_tested(load_dataset(tmp_path), (), Silent())) == []
