"""How full each file system is, and whether it can still be written to.

Source: ``/proc/self/mountinfo`` (proc(5); Documentation/filesystems/proc.rst, 3.5) and statvfs(3).
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, NamedTuple

from msgspec import Meta
from twisted.logger import Logger, LogLevel

from belatwist.collectors.contract import GAUGE, AbsentError, Machine, Metric, Options, Source
from belatwist.collectors.skipped import SkippedLines
from belatwist.config.values import NamePattern
from belatwist.errors import ParseError
from belatwist.log.events import Event
from belatwist.log.throttle import ItemFailureLog, kind_of
from belatwist.model import Sample
from belatwist.procfs import text
from belatwist.runtime.threads import Calls

FILESYSTEM_FAILED = Event(
    "filesystem.failed",
    LogLevel.warn,
    "File system {mountpoint} is left out: {error}",
    fields=("error_type",),
    cure="A network file system that does not answer needs its server, or an umount -l.",
)
FILESYSTEM_RECOVERED = Event(
    "filesystem.recovered", LogLevel.info, "File system {mountpoint} answers again"
)
FILESYSTEM_REMOVED = Event(
    "filesystem.removed", LogLevel.info, "File system {mountpoint} was unmounted"
)

SIZE = Metric(
    "filesystem.size_bytes", GAUGE, "bytes", "Size of a file system.", tags=("mountpoint",)
)
AVAILABLE = Metric(
    "filesystem.available_bytes",
    GAUGE,
    "bytes",
    "Space that a user without privileges can still take.",
    tags=("mountpoint",),
)
USED = Metric("filesystem.used_bytes", GAUGE, "bytes", "Space in use.", tags=("mountpoint",))
FILES_FREE = Metric(
    "filesystem.files_free",
    GAUGE,
    "files",
    "Files that can still be created.",
    tags=("mountpoint",),
)
READONLY = Metric(
    "filesystem.readonly",
    GAUGE,
    "bool",
    "1 when nothing can be written to a file system, 0 otherwise.",
    tags=("mountpoint",),
)

NETWORK_TYPES = frozenset(
    {
        "9p", "afs", "ceph", "cifs", "fuse.ceph", "fuse.glusterfs", "fuse.rclone", "fuse.s3fs",
        "fuse.sshfs", "glusterfs", "lustre", "nfs", "nfs4", "smb3", "smbfs", "virtiofs",
    }
)  # fmt: skip
"""Types of file systems on another machine."""

POOL_TYPES = frozenset({"bcachefs", "zfs"})
"""Types of file systems whose source is the name of a pool."""

IMAGE_TYPES = frozenset({"cramfs", "erofs", "iso9660", "romfs", "squashfs", "udf"})
"""Types of file systems that are always full: images, such as snap packages and optical media."""

MEMORY_TYPES = frozenset({"devtmpfs", "overlay", "ramfs", "rootfs", "tmpfs"})
"""Types of file systems that a path as their source does not make real."""

ANSWER_WITHIN = 0.5
"""Seconds that all file systems together have to answer. A local one needs microseconds."""

_ESCAPE = re.compile(rb"\\([0-7]{3})")
_DEVICE = re.compile(rb"[0-9]{1,10}:[0-9]{1,10}")
_NUMBER = re.compile(rb"[0-9]{1,10}")


class FilesystemOptions(Options, frozen=True, kw_only=True):
    """The options of ``filesystem.usage``."""

    include_mountpoints: Annotated[
        tuple[NamePattern, ...],
        Meta(max_length=64, description="Mount points to report. Empty: all file systems."),
    ] = ()
    exclude_mountpoints: Annotated[
        tuple[NamePattern, ...],
        Meta(max_length=64, description="Mount points not to report."),
    ] = ()
    max_filesystems: Annotated[
        int,
        Meta(ge=1, le=256, description="Maximum number of file systems; each has five series."),
    ] = 16


class Mount(NamedTuple):
    """A line of ``mountinfo``.

    :ivar number: identifies the mount.
    :ivar parent: the mount that it is mounted on.
    :ivar device: ``major:minor`` of the file system.
    :ivar root: the directory of the file system that is mounted; ``/`` unless it is a bind mount.
    :ivar path: the mount point.
    :ivar type: of the file system, such as ``ext4``.
    :ivar source: a block device, a server's export, or a word.
    :ivar readonly: whether the file system as a whole cannot be written to. A single mount of it
        may be read-only besides, as in the agent's own sandbox.
    """

    number: int
    parent: int
    device: str
    root: bytes
    path: bytes
    type: str
    source: str
    readonly: bool


@dataclass(frozen=True, slots=True)
class Mounts:
    """The mounts that this process sees.

    :ivar mounts: in the kernel's order.
    :ivar skipped: quotations of the lines that could not be used.
    """

    mounts: tuple[Mount, ...]
    skipped: tuple[str, ...] = ()


def parse(content: bytes) -> Mounts:
    """Parse ``/proc/self/mountinfo``.

    :raises ParseError: when there are lines and none of them can be read.
    """
    complete, unusable = text.lines(content)
    mounts: list[Mount] = []
    for line in complete:
        mount = _mount(line)
        if mount is None:
            unusable.append(line)
        else:
            mounts.append(mount)
    if unusable and not mounts:
        raise ParseError("/proc/self/mountinfo", f"no mount in '{text.quote(content)}'")
    return Mounts(tuple(mounts), text.quote_lines(unusable))


def _mount(line: bytes) -> Mount | None:
    # A name has no space in it: the kernel writes \040. Optional fields end with the hyphen.
    left, hyphen, right = line.partition(b" - ")
    fields, last = left.split(b" "), right.split(b" ")
    if not hyphen or len(fields) < 6 or len(last) < 3:
        return None
    number, parent, device, root, path = fields[:5]
    if not (_NUMBER.fullmatch(number) and _NUMBER.fullmatch(parent) and _DEVICE.fullmatch(device)):
        return None
    if not path.startswith(b"/"):
        return None
    return Mount(
        int(number),
        int(parent),
        device.decode("ascii"),
        _unescape(root),
        _unescape(path),
        text.name(_unescape(last[0])),
        text.name(_unescape(last[1])),
        b"ro" in last[2].split(b","),
    )


def _unescape(name: bytes) -> bytes:
    return _ESCAPE.sub(lambda match: bytes([int(match[1], 8) & 255]), name)


def is_real(mount: Mount) -> bool:
    """Tell whether a file system keeps files on a medium that can fill up."""
    if mount.type in NETWORK_TYPES or mount.type in POOL_TYPES:
        return True
    return mount.source.startswith("/") and mount.type not in IMAGE_TYPES | MEMORY_TYPES


def visible(mounts: tuple[Mount, ...]) -> list[Mount]:
    """Return the mounts that no other mount covers, which would answer in their place."""
    by_number = {mount.number: mount for mount in mounts}
    covered = {
        mount.parent
        for mount in mounts
        if (below := by_number.get(mount.parent)) is not None and below.path == mount.path
    }

    def is_visible(mount: Mount) -> bool:
        seen: set[int] = set()
        path = mount.path
        while mount.number not in seen:
            seen.add(mount.number)
            if mount.number in covered:
                return False
            above = by_number.get(mount.parent)
            # A mount that covers its parent stands in its place.
            while above is not None and above.path == path and above.number not in seen:
                seen.add(above.number)
                above = by_number.get(above.parent)
            if above is None:
                return True
            mount, path = above, above.path
        return True

    return [mount for mount in mounts if is_visible(mount)]


def chosen(mounts: tuple[Mount, ...]) -> Mapping[str, Mount]:
    """Choose the mounts to report: each real file system once, by its mount point as a text.

    Of several mounts of a device the one of its whole file system is chosen, then the shortest.
    Local file systems come before those of other machines.
    """
    best: dict[str, Mount] = {}
    for mount in visible(mounts):
        if is_real(mount):
            other = best.get(mount.device)
            if other is None or _rank(mount) < _rank(other):
                best[mount.device] = mount
    ordered = sorted(best.values(), key=lambda mount: (mount.type in NETWORK_TYPES, mount.path))
    return {text.name(mount.path): mount for mount in ordered}


def _rank(mount: Mount) -> tuple[bool, int, bytes]:
    return mount.root != b"/", len(mount.path), mount.path


class FilesystemUsage:
    """``filesystem.*`` of each real file system.

    A file system that does not answer, such as one of a dead server, costs only itself: its call
    is abandoned, and no other is made before it has returned.

    :param machine: the machine to measure.
    :param options: which file systems to report, and how many.
    :ivar left_out: mount points beyond the maximum.
    """

    _log = Logger()

    def __init__(self, machine: Machine, options: FilesystemOptions) -> None:
        self._machine = machine
        self._include = [re.compile(pattern) for pattern in options.include_mountpoints]
        self._exclude = [re.compile(pattern) for pattern in options.exclude_mountpoints]
        self._most = options.max_filesystems
        self._calls = Calls("statvfs")
        self._skipped = SkippedLines("/proc/self/mountinfo", self._log, machine.seconds)
        self._failures = ItemFailureLog(self._log, machine.seconds, "mountpoint")
        self.left_out: tuple[str, ...] = ()

    def collect(self, now_ms: int) -> list[Sample]:
        """Ask each file system.

        :raises AbsentError: when there is none, as in a container without volumes.
        :raises BelaError: when the mounts cannot be read.
        """
        reading = parse(self._machine.procfs.read("self/mountinfo"))
        self._skipped.report(reading.skipped)
        found = {path: m for path, m in chosen(reading.mounts).items() if self._wants(path)}
        self._failures.removed(found, FILESYSTEM_REMOVED)
        self.left_out = tuple(found)[self._most :]
        asked = tuple(found)[: self._most]
        answers = self._calls.ask_all(
            {path: partial(self._machine.statvfs, found[path].path) for path in asked},
            ANSWER_WITHIN,
        )
        samples: list[Sample] = []
        for path, answer in answers.items():
            samples.extend(self._report(path, found[path], answer, now_ms))
        if not found:
            raise AbsentError("no file system that keeps files on a medium is mounted")
        return samples

    def _wants(self, path: str) -> bool:
        if any(pattern.fullmatch(path) for pattern in self._exclude):
            return False
        return not self._include or any(pattern.fullmatch(path) for pattern in self._include)

    def _report(
        self, path: str, mount: Mount, answer: os.statvfs_result | Exception, now_ms: int
    ) -> Iterator[Sample]:
        series = partial(self._machine.series, mountpoint=path)
        yield Sample(series(READONLY), now_ms, int(mount.readonly))
        if isinstance(answer, Exception):
            self._failed(path, answer)
            return
        if max(answer.f_bfree, answer.f_bavail) > answer.f_blocks:
            # Some drivers count below nothing, which is near 2^64.
            self._failed(path, ValueError("it says that more is free than there is"))
            return
        self._failures.recovered(path, FILESYSTEM_RECOVERED)
        size = answer.f_frsize or answer.f_bsize
        yield Sample(series(SIZE), now_ms, answer.f_blocks * size)
        yield Sample(series(AVAILABLE), now_ms, answer.f_bavail * size)
        yield Sample(series(USED), now_ms, (answer.f_blocks - answer.f_bfree) * size)
        if answer.f_files:  # Btrfs and FAT have no table of files that could fill up.
            yield Sample(series(FILES_FREE), now_ms, answer.f_ffree)

    def _failed(self, path: str, error: Exception) -> None:
        """Log why there are no amounts.

        :raises Exception: the error, when it is a fault of this program.
        """
        if not isinstance(error, OSError | ValueError):  # TimeoutError is an OSError.
            raise error
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        self._failures.failed(
            path,
            FILESYSTEM_FAILED,
            kind_of(error),
            error=reason,
            error_type=type(error).__name__,
        )


SOURCE = Source(
    "filesystem.usage",
    60.0,
    FilesystemUsage,
    (SIZE, AVAILABLE, USED, FILES_FREE, READONLY),
    options=FilesystemOptions,
)
