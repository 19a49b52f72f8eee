"""Writing and naming files: on real files, links, pipes and a device."""

import errno
import os
import stat
import subprocess
import sys
import threading

import pytest

from invad.errors import DataError, in_one_line, reason
from invad.system.files import (
    Output,
    fitting_name,
    is_file,
    is_folder,
    is_standard_output,
    is_there,
    replacing,
    write_atomically,
)


def test_a_file_is_replaced_whole_and_nothing_stays_beside_it(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    output = Output(path)
    output.write(b"ne")
    assert path.read_text() == "old"
    output.write(b"w")
    output.keep()
    assert path.read_text() == "new"
    again = Output(path)
    again.write(b"lost")
    again.drop()
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_what_was_written_so_far_is_on_disk(tmp_path):
    output = Output(tmp_path / "a.csv")
    output.write(b"row\n")
    [partial] = tmp_path.iterdir()
    assert (partial.name, partial.read_bytes()) == (f"a.csv.{os.getpid()}.partial", b"row\n")
    output.drop()


@pytest.mark.parametrize("write", ["content", "name"])
def test_a_link_stays_and_its_target_is_replaced(tmp_path, write):
    (tmp_path / "store").mkdir()
    target, link, dangling = tmp_path / "store" / "real", tmp_path / "link", tmp_path / "dangling"
    target.write_text("old")
    link.symlink_to("store/real")
    dangling.symlink_to("store/later")
    for path in (link, dangling):
        if write == "content":
            write_atomically(path, b"new")
        else:
            with replacing(path) as made:
                made.write_bytes(b"new")
    assert link.is_symlink()
    assert dangling.is_symlink()
    assert target.read_text() == (tmp_path / "store" / "later").read_text() == "new"


@pytest.mark.parametrize("write", ["content", "name"])
def test_a_pipe_is_written_in_place(tmp_path, write):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    if write == "content":
        write_atomically(pipe, b"whole")
    else:
        with replacing(pipe) as made:
            made.write_bytes(b"whole")
    reader.join(10)
    assert read == [b"whole"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_device_stays_a_device(tmp_path):
    node = tmp_path / "null"
    try:
        os.mknod(node, 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("needs root to make a device")
    link = tmp_path / "link"
    link.symlink_to(node)
    for path in (node, link):
        write_atomically(path, b"gone")
        assert stat.S_ISCHR(path.stat().st_mode)


SAY = """
import sys
from pathlib import Path
from invad.system.files import is_standard_output, write_atomically
print("before", flush=True)
assert is_standard_output(sys.argv[1])
write_atomically(Path(sys.argv[1]), b"content\\n")
print("after")
"""


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link"])
def test_standard_output_by_its_name_keeps_what_was_printed(tmp_path, name):
    """It is a file here, which opening anew would empty and renaming take away."""
    if name == "link":
        (tmp_path / "link").symlink_to("/dev/stdout")
        name = str(tmp_path / "link")
    with (tmp_path / "out.txt").open("w") as out:
        subprocess.run([sys.executable, "-c", SAY, name], stdout=out, check=True)
    assert (tmp_path / "out.txt").read_text() == "before\ncontent\nafter\n"
    assert not is_standard_output(tmp_path / "out.txt")


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path):
    (tmp_path / "full").symlink_to("/dev/full")
    with pytest.raises(DataError, match=r"full: cannot be written: No space left on device; free space"):
        write_atomically(tmp_path / "full", b"too much")
    with pytest.raises(
        DataError, match=r"none/a: cannot be written: No such file or directory; check the path"
    ):
        write_atomically(tmp_path / "none" / "a", b"")
    (tmp_path / "round").symlink_to("round")
    with pytest.raises(DataError, match="links lead back"):
        write_atomically(tmp_path / "round", b"")
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), replacing(path):
        (tmp_path / "none").read_bytes()
    assert path.read_text() == "old"
    assert {entry.name for entry in tmp_path.iterdir()} == {"a", "full", "round"}


def test_a_name_of_the_most_bytes_can_be_written(tmp_path):
    path = tmp_path / ("検" * 85)
    write_atomically(path, b"whole")
    assert path.read_bytes() == b"whole"
    with pytest.raises(DataError, match="File name too long; give a shorter name"):
        write_atomically(tmp_path / ("a" * 256), b"")


def test_long_names_are_cut_in_bytes_and_stay_apart(tmp_path):
    assert fitting_name("short", ".png", tmp_path) == "short.png"
    stems = ["検" * 100, "検" * 101, "a" * 300, "a" * 250 + "\udcff", "é" * 127]
    names = [fitting_name(stem, "_overlay.png", tmp_path) for stem in stems]
    assert len(set(names)) == len(names)
    for name in names:
        assert name.endswith("_overlay.png")
        (tmp_path / name).touch()


def test_what_a_path_is(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "round").symlink_to("round")
    assert (is_folder(tmp_path), is_file(tmp_path), is_there(tmp_path)) == (True, False, True)
    assert (is_folder(tmp_path / "file"), is_file(tmp_path / "file")) == (False, True)
    for absent in ("none", "file/below", "null\0"):
        assert not is_there(tmp_path / absent)
    with pytest.raises(DataError, match=r"round: .*links lead back"):
        is_folder(tmp_path / "round")
    with pytest.raises(DataError, match="File name too long"):
        is_there(tmp_path / ("a" * 300))


def test_the_advice_fits_the_error():
    def said(number, **where):
        return reason(OSError(number, os.strerror(number)), **where)

    for gone in (errno.ESTALE, errno.EIO, errno.ENOTCONN, errno.EHOSTDOWN, errno.ETIMEDOUT):
        assert said(gone).startswith(f"{os.strerror(gone)}; is the share mounted")
    assert (
        said(errno.EACCES, writing=False) == "Permission denied; allow reading it, and the folders it lies in"
    )
    assert said(errno.EACCES, writing=True) == "Permission denied; choose a folder that you may write to"
    assert said(errno.ENOSPC) == "No space left on device; free space or choose another folder"
    assert reason(OSError("no number\nof its own")) == "no number of its own"
    assert reason(OSError("cannot map (os error 116)")) == said(errno.ESTALE)
    assert in_one_line(OSError(errno.ESTALE, "gone", "a.png")) == "gone; is the share mounted?"
    assert (in_one_line(ValueError("two\nlines")), in_one_line(ValueError())) == ("two lines", "ValueError")
