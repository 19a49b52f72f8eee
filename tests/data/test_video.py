"""Frames of videos against the pixels that were written."""

import gc
import io
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from clips import write_clip, write_sound
from invad.data.images import read_image
from invad.data.video import Frame, expected_frames, frame_pixels, orientation_of, read_video
from invad.errors import ConfigError, DataError

av = pytest.importorskip("av", reason="PyAV is not installed")

LEVELS8 = np.arange(256, dtype=np.uint8).reshape(16, 16)
LEVELS16 = np.arange(65536, dtype=np.uint16).reshape(256, 256)


def colours(dtype: type, most: int) -> NDArray[Any]:
    """15 x 17 so that no row is a multiple of what swscale likes."""
    return np.random.default_rng(0).integers(0, most + 1, (15, 17, 3)).astype(dtype)


RGB8, RGB16 = colours(np.uint8, 255), colours(np.uint16, 65535)


@pytest.mark.parametrize("layout", ["rgb24", "bgr24", "gbrp", "bgr0", "rgba"])
def test_colours_of_eight_bits_stay_as_they_are(layout: str) -> None:
    frame = av.VideoFrame.from_ndarray(RGB8, "rgb24").reformat(format=layout)
    found = frame_pixels(frame)
    assert (found.dtype, found.tolist()) == (np.uint8, RGB8.tolist())


@pytest.mark.parametrize("layout", ["rgb48le", "rgb48be", "gbrp16le", "rgba64le"])
def test_colours_of_sixteen_bits_stay_as_they_are(layout: str) -> None:
    frame = av.VideoFrame.from_ndarray(RGB16, "rgb48le").reformat(format=layout)
    found = frame_pixels(frame)
    assert (found.dtype, found.tolist()) == (np.uint16, RGB16.tolist())


@pytest.mark.parametrize(("layout", "levels"), [("gray", LEVELS8), ("gray16le", LEVELS16)])
def test_grey_levels_stay_as_they_are(layout: str, levels: NDArray[Any]) -> None:
    found = frame_pixels(av.VideoFrame.from_ndarray(levels, layout))
    assert (found.dtype, found.tolist()) == (levels.dtype, levels.tolist())


def test_alpha_does_not_touch_the_colours() -> None:
    clear = np.dstack([RGB8, np.zeros_like(RGB8[..., :1])])
    assert (frame_pixels(av.VideoFrame.from_ndarray(clear, "rgba")) == RGB8).all()


def plane_frame(layout: str, luma: NDArray[np.uint16], chroma: int) -> Any:
    """A frame of 16-bit samples whose chroma, where it has any, is `chroma` everywhere."""
    height, width = luma.shape
    frame = av.VideoFrame(width, height, layout)
    for i, plane in enumerate(frame.planes):
        rows = np.zeros((plane.height, plane.line_size // 2), np.uint16)
        rows[:, : plane.width] = chroma if i else luma
        plane.update(rows.tobytes())
    return frame


def test_ten_and_twelve_bits_keep_every_level() -> None:
    for bits in (10, 12):
        luma = np.arange(2**bits, dtype=np.uint16).reshape(32, -1)
        found = frame_pixels(plane_frame(f"gray{bits}le", luma, 0))
        assert (found == (luma << (16 - bits) | luma >> (2 * bits - 16))).all()
    luma = np.arange(64, 940, dtype=np.uint16).reshape(12, 73).repeat(2, axis=1)
    found = frame_pixels(plane_frame("yuv420p10le", luma, 512))
    assert found.dtype == np.uint16
    assert (found == found[..., :1]).all()
    assert len(np.unique(found)) == 876


def rgb_of(y: Any, u: Any, v: Any, red: float, blue: float, full: bool) -> NDArray[np.float64]:
    """BT.601 and BT.709 by their definition, from the weights of red and blue in the luma."""
    luma, scale = (y / 255, 255) if full else ((y - 16) / 219, 224)
    blues, reds = 2 * (1 - blue) * (u - 128) / scale, 2 * (1 - red) * (v - 128) / scale
    greens = -(red * reds + blue * blues) / (1 - red - blue)
    return np.clip(255 * np.dstack([luma + reds, luma + greens, luma + blues]), 0, 255)


@pytest.mark.parametrize(("space", "red", "blue"), [(2, 0.299, 0.114), (1, 0.2126, 0.0722)])
@pytest.mark.parametrize("full", [False, True])
def test_colours_follow_the_space_and_range_that_are_stated(
    space: int, red: float, blue: float, full: bool
) -> None:
    yuv = np.random.default_rng(1).integers(16, 236, (3, 16, 16)).astype(np.uint8)
    frame = av.VideoFrame.from_ndarray(yuv, "yuv444p")
    frame.colorspace, frame.color_range = space, 2 if full else 1
    wanted = rgb_of(*yuv.astype(float), red, blue, full)
    assert np.abs(frame_pixels(frame) - wanted).max() < 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_frame_comes_upright(orientation: int) -> None:
    """As `read_image` turns the same JPEG; a mirrored one, too, where PyAV hands out the display matrix."""
    corner = np.zeros((16, 32, 3), np.uint8)
    corner[:8, :8] = 255
    exif = Image.Exif()
    exif[274] = orientation
    content = io.BytesIO()
    Image.fromarray(corner).save(content, "JPEG", exif=exif, quality=95)
    with av.open(io.BytesIO(content.getvalue())) as file:
        frame = next(file.decode(video=0))
        try:
            frame.side_data["DISPLAYMATRIX"]
        except KeyError:
            assert orientation == 1
        except ValueError:
            if orientation in (2, 4, 5, 7):
                pytest.skip("this PyAV does not hand out the display matrix beside EXIF")
        found = frame_pixels(frame, orientation_of(frame))
        assert orientation == 4 or (frame_pixels(frame) == found).all()
    wanted = read_image(content.getvalue())
    assert found.shape == wanted.shape
    assert np.abs(found.astype(int) - wanted).max() < 12


def noise(count: int, dtype: type = np.uint8, shape: tuple[int, ...] = (48, 64, 3)) -> list[NDArray[Any]]:
    rng = np.random.default_rng(2)
    return [rng.integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype) for _ in range(count)]


def moving(count: int) -> list[NDArray[Any]]:
    """Noise around a spot that wanders, so that frames of a lossy codec differ and refer to each other."""
    pictures = []
    for i, grain in enumerate(noise(count)):
        picture = 60 + grain // 8
        picture[10:30, i : i + 20] = 200
        pictures.append(picture)
    return pictures


def broken(path: Path, at: float, count: int = 60) -> Path:
    content = bytearray(path.read_bytes())
    start = int(len(content) * at)
    content[start : start + count] = bytes(count)
    path.write_bytes(content)
    return path


def cut(path: Path, at: float) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * at)])
    return path


def errors(frames: list[Frame]) -> list[str]:
    return [str(frame.pixels) for frame in frames if isinstance(frame.pixels, DataError)]


@pytest.mark.parametrize(
    ("layout", "dtype", "shape"),
    [
        ("bgr0", np.uint8, (47, 63, 3)),
        ("gray", np.uint8, (47, 63)),
        ("gray16le", np.uint16, (47, 63)),
        ("gbrp16le", np.uint16, (47, 63, 3)),
    ],
)
def test_a_lossless_video_gives_what_was_written(
    layout: str, dtype: type, shape: tuple[int, ...], tmp_path: Path
) -> None:
    written = noise(4, dtype, shape)
    frames = list(read_video(write_clip(tmp_path / "clip.mkv", written, layout=layout)))
    assert [frame.number for frame in frames] == [0, 1, 2, 3]
    assert [frame.time for frame in frames] == [0.0, 0.04, 0.08, 0.12]
    for frame, picture in zip(frames, written, strict=True):
        assert (frame.pixels.dtype, frame.pixels.tolist()) == (dtype, picture.tolist())


def test_frames_come_in_the_order_of_time_where_they_are_stored_in_another(tmp_path: Path) -> None:
    """Frames that refer to later ones (B frames) in MP4 and in MPEG-TS, whose clock does not begin at 0."""
    for name, begin in (("clip.mp4", 0), ("clip.ts", None)):
        clip = write_clip(tmp_path / name, moving(30), codec="libx264", layout="yuv420p", bf="3")
        frames = list(read_video(clip))
        assert errors(frames) == []
        places = [int((frame.pixels[..., 0] > 150)[20].argmax()) for frame in frames]
        assert places == sorted(places)
        times = [frame.time for frame in frames]
        assert len(times) == 30
        assert np.allclose(np.diff(times), 0.04)
        assert begin is None or times[0] == begin


def test_every_takes_the_first_frame_of_each_interval(tmp_path: Path) -> None:
    times = [0, 40, 190, 200, 210, 400, 410, 1000, 1001, 1300]
    clip = write_clip(tmp_path / "clip.mkv", noise(10), times=times)
    frames = list(read_video(clip, every=0.2))
    assert [(f.number, f.time) for f in frames] == [(0, 0.0), (3, 0.2), (5, 0.4), (7, 1.0), (9, 1.3)]
    assert len(list(read_video(clip))) == 10
    assert expected_frames(clip, 0.2) in (6, 7)


@pytest.mark.parametrize("read", [read_video, None], ids=["file", "frames"])
def test_no_frame_is_kept(read: Any, tmp_path: Path) -> None:
    """Neither by us nor by a cycle of references, which holds megabytes until Python looks for such."""
    clip = write_clip(tmp_path / "clip.mkv", noise(20, shape=(512, 512, 3)))
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        if read is None:
            with av.open(str(clip)) as file:
                for frame in file.decode(video=0):
                    frame_pixels(frame)
        else:
            for frame in read(clip):
                assert frame.pixels.shape == (512, 512, 3)
        _, most = tracemalloc.get_traced_memory()  # before the list of all objects, which is large
        # isinstance would ask objects of other libraries, some of which warn
        kept = sum(type(one) is av.VideoFrame for one in gc.get_objects())
    finally:
        gc.enable()
        tracemalloc.stop()
    assert kept <= 3
    assert most < 5_000_000


@pytest.mark.parametrize("every", [0, -1, float("nan"), float("inf")])
def test_every_is_a_time_above_zero(every: float, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"every = .*: give seconds above 0"):
        read_video(tmp_path / "clip.mp4", every=every)


def test_a_damaged_frame_is_named_in_its_place(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.avi", noise(20), codec="mjpeg", layout="yuvj420p")
    frames = list(read_video(broken(clip, 0.55)))
    assert [frame.number for frame in frames] == list(range(20))
    (said,) = errors(frames)
    (place,) = [frame for frame in frames if isinstance(frame.pixels, DataError)]
    assert said.startswith(f"{clip}: frame {place.number} at {place.time:.3f} s cannot be decoded (")
    assert place.time == pytest.approx(0.04 * place.number)
    assert errors(list(read_video(clip, every=100))) == [said]


def test_what_refers_to_a_damaged_frame_is_not_judged(tmp_path: Path) -> None:
    """Every frame is there once, in the order of time: as it was, or named; key frames end the damage."""
    clip = write_clip(
        tmp_path / "clip.mkv", moving(40), codec="libx264", layout="yuv420p", bf="3", qp="20", g="16"
    )
    content = clip.read_bytes()
    whole = [frame.pixels for frame in read_video(clip)]
    named = 0
    for at in np.linspace(0.45, 0.9, 7):
        clip.write_bytes(content)
        frames = list(read_video(broken(clip, at, 30)))
        if not errors(frames):
            continue  # it still decodes
        assert [frame.time for frame in frames] == [pytest.approx(0.04 * i) for i in range(len(frames))]
        assert len(frames) == 40 or "what follows is missing" in errors(frames)[-1]
        readable = [i for i, frame in enumerate(frames) if not isinstance(frame.pixels, DataError)]
        assert all((frames[i].pixels == whole[i]).all() for i in readable)
        assert len(readable) >= 20
        named += 1
    assert named >= 2


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv"])
def test_a_video_that_is_cut_off_says_where(name: str, tmp_path: Path) -> None:
    movflags = {"movflags": "faststart"} if name.endswith("mp4") else {}
    clip = write_clip(tmp_path / name, moving(40), codec="libx264", layout="yuv420p", **movflags)
    frames = list(read_video(cut(clip, 0.6)))
    assert 10 < len(frames) < 40
    last = frames[-1]
    assert errors(frames)[-1] == (
        f"{clip}: frame {last.number} at {last.time:.3f} s and what follows is missing, of 1.600 s in all; "
        "copy the file again"
    )


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.mp4", b"", "is empty; copy the file again"),
        ("text.mp4", b"this is no video\n" * 40, "is no video"),
        ("list.mp4", b"#EXTM3U\n#EXTINF:1,\nclip.ts\n#EXT-X-ENDLIST\n", "is no video"),
        ("list.avi", b"ffconcat version 1.0\nfile clip.ts\n", "is no video"),
    ],
)
def test_what_is_no_video_is_told_in_one_line(name: str, content: bytes, words: str, tmp_path: Path) -> None:
    """Lists lead to no other file."""
    write_clip(tmp_path / "clip.ts", noise(2), codec="libx264", layout="yuv420p")
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=words) as caught:
        next(read_video(path))
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_other_things_that_are_no_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = write_clip(tmp_path / "clip.mp4", moving(10), codec="libx264", layout="yuv420p")

    def said(path: Path) -> str:
        with pytest.raises(DataError) as caught:
            next(read_video(path))
        return str(caught.value).removeprefix(f"{path}: ")

    assert (
        said(write_sound(tmp_path / "sound.mp4"))
        == "holds audio and no video; give a file with moving pictures"
    )
    covered = write_sound(tmp_path / "covered.mp4", RGB8)
    assert said(covered).startswith("holds audio and no video; give a file with moving pictures")
    picture = tmp_path / "picture.mp4"
    Image.fromarray(RGB8).save(picture, "GIF")
    assert said(picture).startswith("is no video")
    assert said(tmp_path / "none.mp4") == "no such file; check the path"
    assert said(tmp_path) == "Is a directory; give a file"
    monkeypatch.setenv("INVAD_MAX_PIXELS", "3000")
    assert said(clip).startswith("64 x 48 pixels is over the limit of 3000")
    monkeypatch.delenv("INVAD_MAX_PIXELS")
    monkeypatch.setitem(sys.modules, "av", None)
    assert said(clip) == "a video needs av>=17 (not installed); pip install 'invad[camera]'"
    monkeypatch.undo()
    packed = clip.read_bytes()
    clip.write_bytes(packed.replace(b"avc1", b"zzzz"))
    assert "(FFmpeg does not know how its pictures are packed)" in said(clip)


@pytest.mark.parametrize("ending", ["mp4", "ts"])
def test_a_file_that_is_cut_off_in_what_it_says_of_itself_is_told(ending: str, tmp_path: Path) -> None:
    """FFmpeg opens some of them, without a stream, with one of no known kind or of no size."""
    clip = write_clip(tmp_path / f"clip.{ending}", moving(10), codec="libx264", layout="yuv420p")
    whole = clip.read_bytes()
    told = set()
    for length in range(1, len(whole), 61):
        clip.write_bytes(whole[:length])
        try:
            next(read_video(clip))
        except DataError as error:
            told.add(str(error).removeprefix(f"{clip}: ").split("(")[0])
    cut_off = "is no video, or one that is cut off or of another kind than its ending says "
    assert cut_off in told
    assert told <= {cut_off, "holds no frames; copy the file again, or record the video again"}


MATRICES = {1: (1, 0, 0, 1), 2: (-1, 0, 0, 1), 4: (1, 0, 0, -1), 5: (0, 1, 1, 0), 8: (0, -1, 1, 0)}


@pytest.mark.parametrize("orientation", MATRICES)
def test_the_display_matrix_is_applied(orientation: int, tmp_path: Path) -> None:
    """a b 0, c d 0 of the track header, with x' = a x + c y and y' = b x + d y."""
    picture = np.zeros((32, 64, 3), np.uint8)
    picture[:8, :24] = 255
    clip = write_clip(tmp_path / "clip.mp4", [picture] * 2, codec="libx264rgb", layout="bgr24", qp="0")
    content = clip.read_bytes()
    start = content.index(b"tkhd") + 44
    a, b, c, d = MATRICES[orientation]
    matrix = np.array([a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30], ">i4").tobytes()
    clip.write_bytes(content[:start] + matrix + content[start + 36 :])
    found = next(read_video(clip)).pixels
    x, y = np.meshgrid(np.arange(64), np.arange(32))
    to_x, to_y = a * x + c * y, b * x + d * y
    wanted = np.zeros((64, 32, 3) if a == 0 else (32, 64, 3), np.uint8)
    wanted[to_y - to_y.min(), to_x - to_x.min()] = picture
    assert (found == wanted).all()
