"""The destinations of the log's lines."""

import errno
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from belatwist.log.file import LogFile


class Pipe:
    """A named pipe with a reader: it can be full, and its reader can go.

    :param path: where it is made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)
        self._reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    def read(self) -> bytes:
        """Return the content of the pipe."""
        found = b""
        while True:
            try:
                more = os.read(self._reader, 65536)
            except BlockingIOError:
                return found
            if not more:
                return found
            found += more

    def fill(self) -> None:
        """Fill the pipe."""
        writer = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
        try:
            while True:
                os.write(writer, b"x" * 4096)
        except BlockingIOError:
            return
        finally:
            os.close(writer)

    def close(self) -> None:
        """Close the reading end."""
        os.close(self._reader)


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[Pipe]:
    """A named pipe."""
    made = Pipe(tmp_path / "pipe")
    yield made
    made.close()


@pytest.fixture
def _umask() -> Iterator[None]:
    """Run with the usual umask."""
    old = os.umask(0o022)
    yield
    os.umask(old)


def rotated(path: Path, *lines: bytes, max_bytes: int = 4) -> LogFile:
    """Write lines, and rotate whenever that is due."""
    file = LogFile(str(path), max_bytes=max_bytes)
    for line in lines:
        if file.due(len(line)):
            file.rotate()
        file.write(line)
    return file


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.usefixtures("_umask")
def test_mode(tmp_path: Path) -> None:
    """A new file is for its owner and group; an existing file keeps its mode."""
    rotated(tmp_path / "new", b"1\n").close()
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640
    (tmp_path / "old").touch(0o644)
    rotated(tmp_path / "old", b"1\n").close()
    assert stat.S_IMODE((tmp_path / "old").stat().st_mode) == 0o644


def test_rotation_keeps_three(tmp_path: Path) -> None:
    """Old files move up by one, the oldest is removed, and every line stays whole."""
    rotated(tmp_path / "log", *(b"%d\n" % n for n in range(10))).close()
    assert contents(tmp_path) == {
        "log": b"8\n9\n",
        "log.1": b"6\n7\n",
        "log.2": b"4\n5\n",
        "log.3": b"2\n3\n",
    }


def test_rotation_goes_on_after_a_restart(tmp_path: Path) -> None:
    """The size of an existing file counts."""
    for n in range(3):
        rotated(tmp_path / "log", b"%d\n" % n).close()
    assert contents(tmp_path) == {"log": b"2\n", "log.1": b"0\n1\n"}


def test_a_line_that_is_larger_than_the_limit(tmp_path: Path) -> None:
    """Such a line has a file of its own, and an empty file is never rotated."""
    rotated(tmp_path / "log", b"too long\n", b"too long\n").close()
    assert contents(tmp_path) == {"log": b"too long\n", "log.1": b"too long\n"}


def test_rotation_of_a_file_that_was_moved(tmp_path: Path) -> None:
    """A rotation after an operator has moved the file loses nothing."""
    path = tmp_path / "log"
    file = rotated(path, b"1\n", b"2\n")
    path.rename(tmp_path / "mine")
    file.rotate()
    file.write(b"3\n")
    file.close()
    assert contents(tmp_path) == {"log": b"3\n", "mine": b"1\n2\n"}


def test_rotation_that_fails(tmp_path: Path) -> None:
    """Lines go on into the old file, and the rotation is not retried with every line."""
    path = tmp_path / "log"
    (tmp_path / "log.2").touch()
    (tmp_path / "log.3").mkdir()
    file = rotated(path, b"1\n", b"2\n")
    assert file.due(2)
    with pytest.raises(IsADirectoryError):
        file.rotate()
    assert not file.due(2)
    file.write(b"3\n")
    file.write(b"4\n")
    assert file.due(2)
    (tmp_path / "log.3").rmdir()
    file.rotate()
    file.close()
    assert contents(tmp_path) == {"log": b"", "log.1": b"1\n2\n3\n4\n", "log.3": b""}


def test_rotation_without_a_new_file(tmp_path: Path) -> None:
    """If no new file can be created, lines go on into the old one under its new name."""
    path = tmp_path / "log"
    file = rotated(path, b"1\n")
    path.rename(tmp_path / "log.1")
    path.symlink_to("elsewhere")
    with pytest.raises(OSError, match="symbolic link"):
        file.reopen()
    file.write(b"2\n")
    file.close()
    assert (tmp_path / "log.1").read_bytes() == b"1\n2\n"
    assert not (tmp_path / "elsewhere").exists()


def test_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    """A link must not choose the file that is written; the error names the reason."""
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    (tmp_path / "log").symlink_to(target)
    with pytest.raises(OSError, match="symbolic link") as refused:
        LogFile(str(tmp_path / "log"), max_bytes=None)
    assert refused.value.errno == errno.ELOOP
    assert refused.value.strerror == "is a symbolic link, through which the log is never written"
    assert target.read_bytes() == b"precious"


def test_a_device_is_never_put_aside() -> None:
    """As root, rotating ``/dev/null`` would remove it for every program."""
    file = LogFile("/dev/null", max_bytes=1)
    for _ in range(3):
        file.write(b"much\n")
        assert not file.due(5)
    file.close()


def test_a_full_pipe_is_not_waited_for(pipe: Pipe) -> None:
    """Writing to a full pipe fails at once, and the next line begins on a new line."""
    file = LogFile(str(pipe.path), max_bytes=1)
    pipe.fill()
    with pytest.raises(BlockingIOError):
        file.write(b"lost\n")
    pipe.read()
    file.write(b"whole\n")
    assert pipe.read() == b"whole\n"
    long = b"a" * 200_000 + b"\n"
    with pytest.raises(BlockingIOError):
        file.write(long)
    torn = pipe.read()
    assert long.startswith(torn)
    pipe.fill()
    with pytest.raises(BlockingIOError):
        file.write(b"lost\n")
    pipe.read()
    file.write(b"one\n")
    file.write(b"two\n")
    assert pipe.read() == b"\none\ntwo\n"
    file.close()


def test_a_write_in_pieces_is_one_write(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of a partial write is written next."""
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:3]))
    file = LogFile(str(pipe.path), max_bytes=None)
    file.write(b"0123456789\n")
    assert pipe.read() == b"0123456789\n"
    file.close()


def test_lines_that_end_where_the_room_does(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a partial write ends with a line, no empty line follows."""
    write, room = os.write, [2, 0]

    def limited(descriptor: int, data: bytes) -> int:
        if room and not room[0]:
            room.pop(0)
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data[: room.pop(0)] if room else data)

    monkeypatch.setattr(os, "write", limited)
    file = LogFile(str(pipe.path), max_bytes=None)
    with pytest.raises(OSError, match="No space"):
        file.write(b"1\n2\n")
    file.write(b"3\n")
    assert pipe.read() == b"1\n3\n"
    file.close()


def test_a_pipe_without_a_reader_is_refused(tmp_path: Path) -> None:
    """Opening a pipe without a reader fails instead of blocking."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="No such device"):
        LogFile(str(tmp_path / "pipe"), max_bytes=None)


def test_a_stream_that_was_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed stream is refused, because its descriptor may belong to the database by now."""
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(OSError, match="Bad file descriptor"):
        LogFile("stdout", max_bytes=None)


def test_a_stream_is_neither_rotated_reopened_nor_closed(tmp_path: Path) -> None:
    """Standard output may be a file of the shell's."""
    with (tmp_path / "out").open("w") as out, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", out)
        out.write("before\n")
        file = LogFile("stderr", max_bytes=1)
        file.write(b"one\n")
        assert not file.due(1)
        file.rotate()
        file.reopen()
        file.close()
        out.write("after\n")
    assert contents(tmp_path) == {"out": b"before\none\nafter\n"}
