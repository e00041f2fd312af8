"""The destination of the log's lines: a stream of the process, or a file of limited size."""

import errno
import os
import stat
import sys
from pathlib import Path

_KEPT = 3
"""Number of old files that are kept; ``.1`` is the newest."""

_FLAGS = (
    os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
    # Neither opening a pipe nor writing to a full one may block.
    | os.O_NONBLOCK
    # A link in the file's place must not choose the file that is written or renamed.
    | os.O_NOFOLLOW
)  # fmt: skip


class LogFile:
    """Writes lines, each with one system call and without a buffer.

    :param output: ``stdout``, ``stderr`` or the path of a file; new lines are appended.
    :param max_bytes: the size at which :meth:`rotate` is due; ``None`` for never. It is never due
        for anything but a regular file.
    :raises OSError: when the file cannot be opened.
    """

    def __init__(self, output: str, *, max_bytes: int | None) -> None:
        self._path = None if output in {"stdout", "stderr"} else output
        self._max_bytes = max_bytes
        self._size: int | None = None
        self._torn = False
        if self._path is None:
            stream = getattr(sys, output)
            if stream is None:  # It was closed when the process began.
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            stream.flush()
            self._descriptor: int = stream.fileno()
        else:
            self._descriptor, self._size = _open(self._path)

    @property
    def terminal(self) -> bool:
        """Whether the stream is a terminal."""
        return os.isatty(self._descriptor)

    def write(self, data: bytes) -> None:
        """Append whole lines.

        :raises OSError: when they could not be written, or only in part. The next ones then begin
            on a new line.
        """
        if self._torn:
            data = b"\n" + data
        written = 0
        try:
            while written < len(data):
                written += os.write(self._descriptor, data[written:] if written else data)
        finally:
            if self._size is not None:
                self._size += written
            if written:
                self._torn = written < len(data) and data[written - 1 : written] != b"\n"

    def due(self, more: int) -> bool:
        """Return whether another ``more`` bytes would exceed the maximum size."""
        if not self._size or self._max_bytes is None:
            return False
        return self._size + more > self._max_bytes

    def rotate(self) -> None:
        """Begin a new file. Each old file moves up by one, and the oldest is removed.

        :raises OSError: when that fails. Lines then go on into the old file, and the next rotation
            is due after another ``max_bytes``.
        """
        if self._path is None:
            return
        self._size = 0
        names = [self._path, *(f"{self._path}.{number}" for number in range(1, _KEPT + 1))]
        for older, newer in zip(names[:0:-1], names[-2::-1], strict=True):
            try:
                Path(newer).replace(older)
            except FileNotFoundError:
                continue
        self.reopen()

    def reopen(self) -> None:
        """Open the file again after another program has moved it; a stream stays as it is.

        :raises OSError: when that fails. Lines then go on into the old file.
        """
        if self._path is None:
            return
        old = self._descriptor
        self._descriptor, self._size = _open(self._path)
        self._torn = False
        os.close(old)

    def close(self) -> None:
        """Close the file; a stream stays open."""
        if self._path is not None:
            os.close(self._descriptor)


def _open(path: str) -> tuple[int, int | None]:
    """Open a file. Return its descriptor, and its size if it is a regular file."""
    try:
        descriptor = os.open(path, _FLAGS, 0o640)
    except OSError as error:
        if error.errno == errno.ELOOP:
            what = "is a symbolic link, through which the log is never written"
            raise OSError(errno.ELOOP, what, path) from None
        raise
    found = os.fstat(descriptor)
    return descriptor, found.st_size if stat.S_ISREG(found.st_mode) else None
