"""The reader of all files of ``/proc`` and ``/sys``; it has a root and a limit of size."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

from belatwist.errors import AbsentError, BelaError, HiddenError, ReadError

DEFAULT_LIMIT = 1024 * 1024
"""Bytes; the largest file read here, ``/proc/stat`` of a server, stays far below."""

_CHUNK = 16 * 1024

DENIED_CURE = (
    "Let the service's user read it: SupplementaryGroups= in a drop-in of the unit, or another"
    " mode. Where the mode allows it already, AppArmor or a sandbox denies it."
)
UNMOUNTED_CURE = (
    "Mount it, or correct paths.procfs and paths.sysfs. In the unit, ProcSubset=pid would hide it."
)


class MissingError(ReadError):
    """There is no such file: this kernel or container does not have the source."""


class TooLargeError(ReadError):
    """The file is larger than the limit.

    :param reason: as for :class:`ReadError`.
    :ivar beginning: what was read of it.
    """

    def __init__(self, reason: str, beginning: bytes) -> None:
        super().__init__(reason)
        self.beginning = beginning


class Reader:
    """Reads files below a root directory. No read changes its state.

    :param root: the directory in the place of ``/proc`` or ``/sys``.
    :param limit: the largest size of a file, in bytes.
    """

    def __init__(self, root: str, *, limit: int = DEFAULT_LIMIT) -> None:
        self._root = root.rstrip("/")
        self._limit = limit

    def read(self, path: str) -> bytes:
        """Read a whole file.

        :param path: relative to the root.
        :raises MissingError: when there is no such file.
        :raises HiddenError: when permissions deny it.
        :raises TooLargeError: when it is larger than the limit.
        :raises ReadError: when it cannot be read.
        """
        full = self.locate(path)
        try:
            try:
                descriptor = os.open(full, os.O_RDONLY)
            except PermissionError as error:
                raise _denied(full, error) from error
            try:
                return self._read_all(descriptor, full)
            finally:
                os.close(descriptor)
        except (OSError, ValueError) as error:
            raise _failure(full, error) from error

    def entries(self, path: str) -> dict[str, int]:
        """List a directory.

        :param path: relative to the root.
        :return: name to inode number. The listing has both, without a look at each entry. In
            sysfs a name that was removed and made again has another inode number.
        :raises MissingError: when there is no such directory.
        :raises HiddenError: when permissions deny it.
        :raises ReadError: when it cannot be listed.
        """
        full = self.locate(path)
        try:
            with os.scandir(full) as found:
                return {entry.name: entry.inode() for entry in found}
        except PermissionError as error:
            raise _denied(full, error) from error
        except (OSError, ValueError) as error:
            raise _failure(full, error) from error

    def link(self, path: str) -> str:
        """Return the last name that a symbolic link leads to.

        :param path: relative to the root.
        :raises MissingError: when there is no such file.
        :raises ReadError: when it is no link, or cannot be read.
        """
        full = self.locate(path)
        try:
            return os.readlink(full).rpartition("/")[2]  # noqa: PTH115 - at each tick
        except (OSError, ValueError) as error:
            raise _failure(full, error) from error

    def locate(self, path: str) -> str:
        """Give the full path, as an operator would name it.

        :raises ReadError: when the path would lead out of the root.
        """
        if path.startswith("/") or ".." in path.split("/"):
            raise ReadError(f"{path!r} leads out of {self._root or '/'}")
        return f"{self._root}/{path}"

    def _read_all(self, descriptor: int, full: str) -> bytes:
        # Tables arrive in pieces of about a page, so that only an empty read is the end.
        pieces: list[bytes] = []
        size = 0
        while piece := os.read(descriptor, _CHUNK):
            size += len(piece)
            pieces.append(piece)
            if size > self._limit:
                raise TooLargeError(
                    f"{full}: larger than the {self._limit} bytes allowed",
                    b"".join(pieces)[: self._limit],
                )
        return b"".join(pieces)


def why_missing(
    look: Callable[[str], object], usual: str, absent: str
) -> AbsentError | HiddenError:
    """Return the reason for which a file or directory is missing.

    :param look: :meth:`Reader.read` or :meth:`Reader.entries`.
    :param usual: what each kernel has there: ``stat`` below ``/proc``, ``class`` below ``/sys``.
    :param absent: says what this machine does not have, where the usual thing is there.
    """
    try:
        look(usual)
    except MissingError as error:
        return HiddenError(f"{error}, although every kernel has it", UNMOUNTED_CURE)
    except BelaError:
        pass  # It is there.
    return AbsentError(absent)


def _denied(full: str, error: PermissionError) -> HiddenError:
    """Return the error of a file that the agent may not open, with its mode and its owner.

    Only opening is a question of permissions: a driver's read may answer EPERM for its own reasons.
    """
    code = errno.errorcode.get(error.errno or 0, "")
    reason = f"{full}: {os.strerror(error.errno or 0)} ({code})"
    try:
        path = Path(full)
        return HiddenError(
            f"{reason}: mode {stat.filemode(path.stat().st_mode)},"
            f" owner {path.owner()}:{path.group()}",
            DENIED_CURE,
        )
    except (OSError, KeyError):  # A folder above denies it, or nobody has that number.
        return HiddenError(reason, DENIED_CURE)


def _failure(full: str, error: OSError | ValueError) -> ReadError:
    if not isinstance(error, OSError):  # a NUL in the path
        return ReadError(f"{full!r}: {error}")
    number = error.errno or 0
    code = errno.errorcode.get(number, str(number))
    kind = MissingError if number in {errno.ENOENT, errno.ENOTDIR} else ReadError
    return kind(f"{full}: {os.strerror(number)} ({code})", code)
