"""``/proc/self/mountinfo`` and the file systems: which are real, how full they are, which hang."""

import errno
import os
import threading
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.logger import LogLevel

from belatwist.collectors.contract import AbsentError, Machine
from belatwist.collectors.filesystem import (
    ANSWER_WITHIN,
    FilesystemOptions,
    FilesystemUsage,
    chosen,
    is_real,
    parse,
    visible,
)
from belatwist.errors import ParseError
from tests.collectors import kernel_texts
from tests.fixture_trees import NOW_MS, Board, half_full, machine, procfs
from tests.log_events import Captured

ROOT = b"30 1 179:2 / / rw,noatime shared:1 - ext4 /dev/mmcblk0p2 rw,errors=remount-ro\n"


def mount(path: str, kind: str = "ext4", source: str = "/dev/sda1", **more: str) -> bytes:
    """Write a line of mountinfo."""
    fields = {"number": "40", "parent": "30", "device": "8:1", "root": "/", "super": "rw", **more}
    return (
        f"{fields['number']} {fields['parent']} {fields['device']} {fields['root']} {path}"
        f" rw,relatime shared:9 - {kind} {source} {fields['super']}\n"
    ).encode()


def found(*lines: bytes) -> list[str]:
    """Return the mount points that are chosen."""
    return list(chosen(parse(b"".join(lines)).mounts))


def on(
    *lines: bytes,
    statvfs: Callable[[bytes], os.statvfs_result] = half_full,
    seconds: Callable[[], float] = lambda: 0.0,
) -> tuple[Machine, Board]:
    """Make a machine with these mounts."""
    board = procfs("vm")
    board.texts["self/mountinfo"] = b"".join(lines)
    return machine(board, statvfs=statvfs, seconds=seconds), board


def values(collector: FilesystemUsage) -> dict[tuple[str, str], float]:
    """Collect, and return the values by mount point and short name."""
    return {
        (s.series.tags[0][1], s.series.name.removeprefix("filesystem.")): float(s.value)
        for s in collector.collect(NOW_MS)
    }


def test_a_line() -> None:
    """The documented fields, with any number of optional ones."""
    for optional in (b"", b"shared:1 ", b"shared:1 master:2 propagate_from:3 "):
        line = b"36 35 98:0 /mnt1 /mnt\\0402 rw,noatime %b- ext3 /dev/root ro,errors=x\n" % optional
        (one,) = parse(line).mounts
        assert (one.number, one.parent, one.device) == (36, 35, "98:0")
        assert (one.root, one.path, one.type) == (b"/mnt1", b"/mnt 2", "ext3")
        assert (one.source, one.readonly) == ("/dev/root", True)


def test_names_with_escapes() -> None:
    """The kernel writes a space, a tab, a newline, a backslash and a hash as octal numbers."""
    (one,) = parse(mount(r"/a\040b\011c\012d\134e\043f")).mounts
    assert one.path == b"/a b\tc\nd\\e#f"
    assert found(mount(r"/media/M\303\274ll")) == ["/media/Müll"]
    assert found(mount("/m\\377")) == ["/m\\xff"]


@pytest.mark.parametrize(
    "line",
    [
        b"36 35 98:0 /mnt1 /mnt2 rw,noatime\n",
        b"36 35 98:0 /mnt1 /mnt2 rw - ext3 /dev/root\n",
        b"36 35 98:0 / - ext3 /dev/root rw\n",
        b"x 35 98:0 / /mnt rw - ext3 /dev/root rw\n",
        b"36 35 98 / /mnt rw - ext3 /dev/root rw\n",
        b"36 35 98:0 / mnt rw - ext3 /dev/root rw\n",
        b"36 35 98:0 / /mnt rw - ext3 /dev/root rw",
    ],
)
def test_a_malformed_line_is_left_out(line: bytes) -> None:
    """It costs itself, and is quoted; alone it is an error."""
    reading = parse(ROOT + line)
    assert [one.path for one in reading.mounts] == [b"/"]
    assert len(reading.skipped) == 1
    with pytest.raises(ParseError, match=r"^/proc/self/mountinfo: no mount"):
        parse(line)


@given(kernel_texts.damaged(kernel_texts.files("proc/self/mountinfo")))
def test_damage_never_makes_a_mount(content: bytes) -> None:
    """Every text is mounts or the announced error, and choosing among them always ends."""
    reading = kernel_texts.attempt(parse, content)
    if reading is not None:
        assert len(chosen(reading.mounts)) <= len(reading.mounts)


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 6), st.sampled_from("abc"))))
def test_any_tree_of_mounts(tree: list[tuple[int, int, str]]) -> None:
    """Also one whose parents go in a circle."""
    lines = [mount(f"/{p}", number=str(n), parent=str(up)) for n, up, p in tree]
    mounts = parse(b"".join(lines)).mounts
    assert set(visible(mounts)) <= set(mounts)


@pytest.mark.parametrize(
    ("kind", "source", "real"),
    [
        ("ext4", "/dev/mmcblk0p2", True),
        ("vfat", "/dev/mmcblk0p1", True),
        ("btrfs", "/dev/nvme0n1p2", True),
        ("f2fs", "/dev/mapper/data", True),
        ("fuseblk", "/dev/sda1", True),
        ("ext4", "/dev/zram0", True),
        ("nfs4", "nas:/media", True),
        ("cifs", "//nas/media", True),
        ("fuse.sshfs", "me@host:", True),
        ("zfs", "tank/data", True),
        ("virtiofs", "share", True),
        ("tmpfs", "tmpfs", False),
        ("tmpfs", "/dev/shm", False),
        ("overlay", "overlay", False),
        ("overlay", "/dev/mapper/x", False),
        ("squashfs", "/dev/loop0", False),
        ("iso9660", "/dev/sr0", False),
        ("proc", "proc", False),
        ("sysfs", "sysfs", False),
        ("cgroup2", "cgroup2", False),
        ("autofs", "systemd-1", False),
        ("fuse.lxcfs", "lxcfs", False),
        ("fuse.portal", "portal", False),
        ("nsfs", "nsfs", False),
        ("debugfs", "debugfs", False),
        ("a-type-of-the-future", "none", False),
    ],
)
def test_what_is_real(kind: str, source: str, *, real: bool) -> None:
    """A file system is real if it keeps files on a medium that can fill up."""
    (one,) = parse(mount("/mnt", kind, source)).mounts
    assert is_real(one) is real


def test_a_device_is_reported_once() -> None:
    """Of several mounts the one of the whole file system is chosen, then the shortest path."""
    assert found(
        mount("/var/log.hdd", number="41", root="/var/log"),
        mount("/very/long", number="42"),
        mount("/data", number="43"),
        mount("/d", number="44", root="/sub"),
    ) == ["/data"]


def test_a_covered_mount_is_left_out() -> None:
    """The answer would be that of the file system on top: the sandbox hides /home in this way."""
    home = mount("/home", number="40", parent="30", device="8:3")
    below = mount("/home/me/disk", number="41", parent="40", device="8:4")
    over = b"50 40 0:99 /systemd/inaccessible/dir /home ro - tmpfs tmpfs ro\n"
    assert found(ROOT, home, below) == ["/", "/home", "/home/me/disk"]
    assert found(ROOT, home, below, over) == ["/"]
    on_top = mount("/home", number="51", parent="40", device="8:9")
    deeper = mount("/home/x", number="52", parent="51", device="8:10")
    assert found(ROOT, home, below, on_top, deeper) == ["/", "/home", "/home/x"]


def test_the_board() -> None:
    """Whole disks' file systems, a disk with a space in its name, the log in compressed memory."""
    collector = FilesystemUsage(machine(procfs("orangepi5plus")), FilesystemOptions())
    got = values(collector)
    assert {path for path, _ in got} == {"/", "/boot", "/media/recordings (SSD)", "/var/log"}
    assert got["/", "size_bytes"] == 32_768_000_000
    assert got["/", "available_bytes"] == 14_745_600_000
    assert got["/", "used_bytes"] == 16_384_000_000
    assert got["/", "files_free"] == 1_500_000
    assert got["/", "readonly"] == 0


def test_read_only_is_the_file_systems_state() -> None:
    """A sandbox makes every mount read-only for the agent, which says nothing of the disk."""
    ours = b"30 1 179:2 / / ro,nosuid,noatime shared:1 - ext4 /dev/mmcblk0p2 rw\n"
    error = b"30 1 179:2 / / rw,noatime shared:1 - ext4 /dev/mmcblk0p2 ro,errors=remount-ro\n"
    for line, readonly in ((ours, 0), (error, 1)):
        collector = FilesystemUsage(on(line)[0], FilesystemOptions())
        assert values(collector)["/", "readonly"] == readonly


def test_a_file_system_without_a_table_of_files() -> None:
    """Btrfs and FAT say 0 files of 0: that is no shortage."""
    answer = os.statvfs_result((4096, 4096, 1000, 500, 400, 0, 0, 0, 0, 255))
    collector = FilesystemUsage(on(ROOT, statvfs=lambda _: answer)[0], FilesystemOptions())
    assert ("/", "files_free") not in values(collector)


@pytest.mark.parametrize("free", [(1001, 400), (500, 2**64 - 5)])
def test_more_free_than_there_is_cannot_be(free: tuple[int, int]) -> None:
    """Used space would be negative, or available space near 2^64 blocks: neither is stored."""
    answer = os.statvfs_result((4096, 4096, 1000, *free, 9, 9, 9, 0, 255))
    collector = FilesystemUsage(on(ROOT, statvfs=lambda _: answer)[0], FilesystemOptions())
    with Captured() as log:
        assert values(collector).keys() == {("/", "readonly")}
    assert log.texts(LogLevel.warn) == [
        "File system / is left out: it says that more is free than there is"
    ]


def test_several_that_hang_wait_together() -> None:
    """Five dead servers cost one wait, and their neighbours answer meanwhile."""
    release = threading.Event()

    def statvfs(path: bytes) -> os.statvfs_result:
        if path.startswith(b"/nas"):
            release.wait()
        return half_full(path)

    lines = [
        mount(f"/nas{n}", "nfs4", f"nas:/{n}", device=f"0:5{n}", number=f"5{n}") for n in range(5)
    ]
    collector = FilesystemUsage(on(ROOT, *lines, statvfs=statvfs)[0], FilesystemOptions())
    began = time.monotonic()
    assert ("/", "size_bytes") in values(collector)
    assert time.monotonic() - began < 3 * ANSWER_WITHIN
    release.set()


def test_options() -> None:
    """Inclusions narrow, exclusions win, and both match whole mount points."""
    lines = (ROOT, mount("/data", device="8:1"), mount("/data/in", number="41", device="8:2"))
    for options, expected in (
        (FilesystemOptions(), {"/", "/data", "/data/in"}),
        (FilesystemOptions(include_mountpoints=("/data",)), {"/data"}),
        (FilesystemOptions(include_mountpoints=("/data.*",)), {"/data", "/data/in"}),
        (FilesystemOptions(exclude_mountpoints=("/data",)), {"/", "/data/in"}),
    ):
        collector = FilesystemUsage(on(*lines)[0], options)
        assert {path for path, _ in values(collector)} == expected


def test_the_number_is_bounded() -> None:
    """Local file systems come first, and those that are left out are named."""
    lines = [
        mount(f"/a{n}", "nfs", f"nas:/{n}", number=str(n + 50), device=f"0:{n}") for n in range(5)
    ]
    collector = FilesystemUsage(on(*lines, ROOT)[0], FilesystemOptions(max_filesystems=2))
    assert {path for path, _ in values(collector)} == {"/", "/a0"}
    assert collector.left_out == ("/a1", "/a2", "/a3", "/a4")


@pytest.mark.parametrize("lines", [(), (mount("/tmp", "tmpfs", "tmpfs"),)])
def test_none_is_absent(lines: tuple[bytes, ...]) -> None:
    """A container without volumes has none."""
    collector = FilesystemUsage(on(*lines)[0], FilesystemOptions())
    with pytest.raises(AbsentError, match="no file system"):
        collector.collect(NOW_MS)


def test_a_failing_file_system_costs_itself() -> None:
    """It is named in the log, once, and so is its recovery."""
    clock = Clock()
    broken = {b"/data"}

    def statvfs(path: bytes) -> os.statvfs_result:
        if path in broken:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return half_full(path)

    lines = (ROOT, mount("/data"))
    collector = FilesystemUsage(
        on(*lines, statvfs=statvfs, seconds=clock.seconds)[0], FilesystemOptions()
    )
    with Captured() as log:
        for _ in range(3):
            got = values(collector)
            assert ("/", "size_bytes") in got
            assert ("/data", "size_bytes") not in got
            clock.advance(60)
        broken.clear()
        assert ("/data", "size_bytes") in values(collector)
    assert log.texts(LogLevel.warn) == ["File system /data is left out: Input/output error"]
    assert log.texts(LogLevel.info) == [
        "File system /data answers again, after 180 s and 3 failures"
    ]


def test_a_file_system_that_hangs_costs_itself() -> None:
    """It gets one thread and one wait; the others are reported each time, and at once."""
    release = threading.Event()
    asked: list[bytes] = []

    def statvfs(path: bytes) -> os.statvfs_result:
        asked.append(path)
        if path == b"/nas":
            release.wait()
        return half_full(path)

    lines = (ROOT, mount("/nas", "nfs4", "nas:/media", device="0:50"))
    collector = FilesystemUsage(on(*lines, statvfs=statvfs)[0], FilesystemOptions())
    with Captured() as log:
        for _ in range(5):
            got = values(collector)
            assert ("/", "size_bytes") in got
            assert ("/nas", "size_bytes") not in got
    assert asked.count(b"/nas") == 1
    release.set()
    assert log.texts(LogLevel.warn) == [
        f"File system /nas is left out: no answer within {ANSWER_WITHIN:g} s"
    ]
