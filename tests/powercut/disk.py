"""Disks with an ext4 on them: one that records what it is told, and the images it leaves."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from tests.powercut import fuse
from tests.powercut.recording import Recording
from tests.process import TIMEOUT

SIZE = 64 << 20

DEFAULT = ""
"""ext4 as it is mounted without further ado: ``data=ordered``, a commit every 5 s."""

CARD = "noatime,commit=30"
"""As a card is mounted by those who want to spare it."""


def run(*command: str | Path) -> str:
    """Run a program and return what it says; :class:`RuntimeError` with that when it fails."""
    done = subprocess.run(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}: {done.stdout.strip()}")
    return done.stdout


def make(image: Path) -> None:
    """Make a file with an empty ext4 in it."""
    with image.open("wb") as file:
        file.truncate(SIZE)
    # As on a disk that has been in use for a while: nothing is left to be initialised.
    lazy = "lazy_itable_init=0,lazy_journal_init=0,nodiscard"
    run("mkfs.ext4", "-q", "-F", "-b", "4096", "-E", lazy, image)


def copy(image: Path, to: Path) -> None:
    """Copy a disk's image; what is empty takes no room."""
    run("cp", "--sparse=always", image, to)


def check(image: Path) -> None:
    """Have a file system looked through that was mounted since: nothing may be wrong with it."""
    run("e2fsck", "-f", "-n", image)


@contextmanager
def mounted(image: Path, options: str = DEFAULT) -> Iterator[Path]:
    """Mount an image, as a machine does that starts again: the journal is replayed.

    :param image: a file, which is changed.
    :return: where; the folder lies beside the image.
    """
    place = image.with_name(f"{image.name}-mounted")
    place.mkdir(exist_ok=True)
    # The loop device goes with its last user.
    run("mount", "-t", "ext4", "-o", f"loop,{options}".rstrip(","), image, place)
    try:
        yield place
    finally:
        unmount(place)


def unmount(place: Path) -> None:
    """Unmount; where something still uses it, as soon as that ends."""
    try:
        run("umount", place)
    except RuntimeError:
        run("umount", "--lazy", place)
        raise


class RecordingDisk:
    """A mounted ext4 on a disk that records.

    :param image: its first state; stays as it is.
    :param folder: for the recording and the mountpoints; made here.
    :ivar place: where it is mounted.
    """

    def __init__(self, image: Path, folder: Path, options: str = DEFAULT) -> None:
        folder.mkdir()
        self.place = folder / "disk-mounted"
        self._image = image
        self._options = options
        self._file = folder / "disk"
        self._recorded = folder / "recording"
        self._stack = ExitStack()

    def __enter__(self) -> "RecordingDisk":
        self._file.touch()
        with ExitStack() as stack:
            stack.enter_context(self._served())
            stack.enter_context(mounted(self._file, self._options))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def recording(self) -> Recording:
        """Return what the disk was told so far."""
        return Recording.read(self._recorded)

    @contextmanager
    def _served(self) -> Iterator[None]:
        paths = (fuse.__file__, self._image, self._file, self._recorded)
        command = [sys.executable, *map(str, paths)]
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as server:
            try:
                assert server.stdout is not None
                said = server.stdout.readline()
                if said != b"ready\n":
                    raise RuntimeError(f"no disk: {(said + server.stdout.read()).decode()}")
                yield
                unmount(self._file)
                server.wait(TIMEOUT)
            finally:
                if server.poll() is None:
                    server.kill()
                    # What it served is gone, but the mountpoint is not.
                    with suppress(RuntimeError):
                        run("umount", "--lazy", self._file)
