"""The rooted, size-limited reader."""

import errno
import os
from pathlib import Path

import pytest

from belatwist.errors import AbsentError, HiddenError, ReadError
from belatwist.procfs.reader import (
    DEFAULT_LIMIT,
    DENIED_CURE,
    UNMOUNTED_CURE,
    MissingError,
    Reader,
    TooLargeError,
    why_missing,
)


def test_a_file_is_read_below_the_root(tmp_path: Path) -> None:
    """Paths are relative to the root, with or without a slash at its end."""
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "dev").write_bytes(b"x\n")
    assert Reader(str(tmp_path)).read("net/dev") == b"x\n"
    assert Reader(f"{tmp_path}/").read("net/dev") == b"x\n"


def test_an_empty_file_is_empty(tmp_path: Path) -> None:
    """Nothing is a legal content."""
    (tmp_path / "diskstats").touch()
    assert Reader(str(tmp_path)).read("diskstats") == b""


def test_a_file_in_many_pieces_is_whole(tmp_path: Path) -> None:
    """A file larger than one read is put together."""
    content = bytes(range(256)) * 1000
    (tmp_path / "stat").write_bytes(content)
    assert Reader(str(tmp_path)).read("stat") == content


@pytest.mark.parametrize(("size", "fits"), [(10, True), (11, False)])
def test_the_limit_is_the_largest_size_allowed(tmp_path: Path, size: int, fits: bool) -> None:
    """A file of exactly the limit is read; a byte more is refused by name."""
    (tmp_path / "f").write_bytes(b"x" * size)
    reader = Reader(str(tmp_path), limit=10)
    if fits:
        assert len(reader.read("f")) == size
    else:
        with pytest.raises(TooLargeError, match=r"/f: larger than the 10 bytes allowed$") as caught:
            reader.read("f")
        assert caught.value.beginning == b"x" * 10


def test_where_a_link_leads(tmp_path: Path) -> None:
    """The last name of it, which need not be there."""
    (tmp_path / "device").symlink_to("../../1-1.2:1.4")
    (tmp_path / "file").touch()
    reader = Reader(str(tmp_path))
    assert reader.link("device") == "1-1.2:1.4"
    with pytest.raises(MissingError):
        reader.link("absent")
    with pytest.raises(ReadError, match="Invalid argument"):
        reader.link("file")


def test_an_endless_file_is_refused() -> None:
    """A file without an end costs no more than the limit."""
    with pytest.raises(ReadError, match=f"larger than the {DEFAULT_LIMIT} bytes"):
        Reader("/dev").read("zero")


@pytest.mark.parametrize("path", ["absent", "file/below"])
def test_a_missing_file_is_a_missing_error(tmp_path: Path, path: str) -> None:
    """A missing file has an error of its own, which names the full path and the reason."""
    (tmp_path / "file").touch()
    with pytest.raises(MissingError) as caught:
        Reader(str(tmp_path)).read(path)
    assert str(caught.value).startswith(f"{tmp_path}/{path}: ")
    with pytest.raises(MissingError):
        Reader(str(tmp_path)).entries(path)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EAGAIN, "Resource temporarily unavailable (EAGAIN)"),
        (errno.EINVAL, "Invalid argument (EINVAL)"),
        (errno.ENODATA, "No data available (ENODATA)"),
        (errno.EACCES, "Permission denied (EACCES)"),
        (errno.EIO, "Input/output error (EIO)"),
    ],
)
def test_a_failing_read_is_reported_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    """The error says why a read() fails, and is no MissingError; the file is closed."""

    def fail(descriptor: int, size: int) -> bytes:
        raise OSError(number, "whatever")

    (tmp_path / "temp").write_bytes(b"44384\n")
    before = len(list(Path("/proc/self/fd").iterdir()))
    with monkeypatch.context() as patch:
        patch.setattr(os, "read", fail)
        with pytest.raises(ReadError) as caught:
            Reader(str(tmp_path)).read("temp")
    assert str(caught.value) == f"{tmp_path}/temp: {words}"
    assert not isinstance(caught.value, MissingError)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM])
@pytest.mark.parametrize("there", [True, False])
def test_what_may_not_be_opened_is_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, there: bool
) -> None:
    """The error has the file's mode and owner, unless a folder above denies those as well."""

    def deny(path: str, *_: object) -> int:
        raise PermissionError(number, "whatever")

    if there:
        (tmp_path / "secret").touch()
        (tmp_path / "secret").chmod(0o640)
    monkeypatch.setattr(os, "open", deny)
    monkeypatch.setattr(os, "scandir", deny)
    reader = Reader(str(tmp_path))
    for look in (reader.read, reader.entries):
        with pytest.raises(HiddenError) as caught:
            look("secret")
        text = f"{tmp_path}/secret: {os.strerror(number)} ({errno.errorcode[number]})"
        if there:
            path = tmp_path / "secret"
            text += f": mode -rw-r-----, owner {path.owner()}:{path.group()}"
        assert (str(caught.value), caught.value.cure) == (text, DENIED_CURE)


def test_why_something_is_missing(tmp_path: Path) -> None:
    """Where the usual is missing too, nothing can be said of the machine: that is hidden."""
    reader = Reader(str(tmp_path))
    hidden = why_missing(reader.read, "stat", "no disks")
    assert isinstance(hidden, HiddenError)
    assert str(hidden).startswith(f"{tmp_path}/stat: ")
    assert str(hidden).endswith(", although every kernel has it")
    assert hidden.cure == UNMOUNTED_CURE
    (tmp_path / "stat").touch()
    absent = why_missing(reader.read, "stat", "no disks")
    assert isinstance(absent, AbsentError)
    assert str(absent) == "no disks"


def test_the_usual_that_cannot_be_read_is_there(tmp_path: Path) -> None:
    """Only a missing one hides the rest."""
    (tmp_path / "stat").mkdir()
    assert isinstance(why_missing(Reader(str(tmp_path)).read, "stat", "no"), AbsentError)


def test_a_directory_is_not_a_file(tmp_path: Path) -> None:
    """Reading a directory is an error like any other."""
    with pytest.raises(ReadError, match="EISDIR"):
        Reader(str(tmp_path)).read("")


@pytest.mark.parametrize("path", ["../etc/passwd", "a/../../b", "/etc/passwd", ".."])
def test_no_path_leads_out_of_the_root(tmp_path: Path, path: str) -> None:
    """A name taken from kernel text cannot reach beyond the root."""
    with pytest.raises(ReadError, match="leads out of"):
        Reader(str(tmp_path)).read(path)


def test_a_path_with_a_nul_is_an_ordinary_failure(tmp_path: Path) -> None:
    """A path that Python refuses to open is a ReadError too."""
    with pytest.raises(ReadError, match="null"):
        Reader(str(tmp_path)).read("a\0b")
    with pytest.raises(ReadError, match="null"):
        Reader(str(tmp_path)).entries("a\0b")


def test_a_listing_has_names_and_inodes(tmp_path: Path) -> None:
    """The inode number is the directory's own word on each entry."""
    (tmp_path / "thermal_zone0").mkdir()
    (tmp_path / "thermal_zone1").symlink_to("elsewhere")
    assert Reader(str(tmp_path)).entries("") == {
        "thermal_zone0": (tmp_path / "thermal_zone0").stat().st_ino,
        "thermal_zone1": (tmp_path / "thermal_zone1").lstat().st_ino,
    }
