"""An advisory lock on ``<database>.lock``: one process for each database."""

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from belatwist.errors import StartError


class ProcessLock:
    """A lock that the kernel releases when the process ends, however it ends.

    :ivar path: the lock file. It holds the process id of its owner, unless the disk was full. The
        file stays behind, unlocked.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock.

        :raises StartError: when another process holds it, or the file cannot be written.
        """
        try:
            # Where the parent is no folder, opening the file has the better error.
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
        # The lock holds also on a full disk; the database then reports the fault.
        with suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)

    def held(self) -> bool:
        """Return whether this process holds the lock; not if the file was deleted or replaced."""
        if self._descriptor is None:
            return False
        try:
            return os.path.samestat(os.fstat(self._descriptor), self.path.stat())
        except OSError:
            return False

    def release(self) -> None:
        """Release the lock, if this process holds it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
