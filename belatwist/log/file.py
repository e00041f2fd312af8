"""Where the log's lines go: a stream of the process, or a file that is kept small."""

import errno
import os
import stat
import sys
from pathlib import Path

_KEPT = 3
"""Old files that are kept: ``.1`` is the youngest."""

_FLAGS = (
    os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
    # A pipe is neither waited for when it is opened, nor when it is full.
    | os.O_NONBLOCK
    # Whoever can put a link in its place must not choose what is written to, or renamed.
    | os.O_NOFOLLOW
)  # fmt: skip


class LogFile:
    """Takes lines, each with one system call and without a buffer of its own.

    :param output: ``stdout``, ``stderr`` or the path of a file, which is appended to.
    :param max_bytes: the size at which a file is due for :meth:`rotate`; ``None`` for any size.
        What is no regular file is never due.
    :raises OSError: when it cannot be opened.
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
        """Whether somebody reads along."""
        return os.isatty(self._descriptor)

    def write(self, data: bytes) -> None:
        """Append whole lines.

        :raises OSError: when they could not be written, or not to their end; the next ones begin a
            line of their own all the same.
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
        """Tell whether the file would be too large with ``more`` bytes."""
        if not self._size or self._max_bytes is None:
            return False
        return self._size + more > self._max_bytes

    def rotate(self) -> None:
        """Begin a new file. The old ones move up by one, and the oldest goes.

        :raises OSError: when that fails; the old file is written on, and due again after as much.
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
        """Open the file anew, after it was moved away; a stream stays as it is.

        :raises OSError: when that fails; the old file is written on.
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
    """Return the descriptor, and the size where it is a regular file."""
    try:
        descriptor = os.open(path, _FLAGS, 0o640)
    except OSError as error:
        if error.errno == errno.ELOOP:
            what = "it is a symbolic link, which a log is not written through"
            raise OSError(errno.ELOOP, what, path) from None
        raise
    found = os.fstat(descriptor)
    return descriptor, found.st_size if stat.S_ISREG(found.st_mode) else None
