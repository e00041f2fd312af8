"""One process a database: an advisory lock on ``<database>.lock``."""

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from belatwist.errors import StartError


class ProcessLock:
    """A lock that the kernel gives back when the process ends, however it ends.

    :ivar path: the lock file; it holds the process id of its owner if there was room for it, and
        stays behind, unlocked.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock.

        :raises StartError: when another process holds it, or the file cannot be written.
        """
        try:
            # What is no folder is not there either: opening the file says so in better words.
            with suppress(FileExistsError):
                self.path.parent.mkdir(mode=0o750, parents=True)
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StartError(f"lock {self.path}: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise StartError(
                f"lock {self.path}: another instance is running (process {owner or 'unknown'})"
            ) from error
        self._descriptor = descriptor
        # On a full disk it holds all the same, and the database is who says what is wrong.
        with suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)

    def held(self) -> bool:
        """Tell whether this process keeps others off: a lock file that was deleted does not."""
        if self._descriptor is None:
            return False
        try:
            return os.path.samestat(os.fstat(self._descriptor), self.path.stat())
        except OSError:
            return False

    def release(self) -> None:
        """Give the lock back; does nothing where it is not held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
