"""The disks."""

import pytest
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from belatwist.collectors.disk import DiskIO
from belatwist.errors import ParseError, ReadError
from belatwist.model import Sample
from tests.fixture_trees import NOW_MS, procfs, sysfs

NAMES = {
    "read_ops",
    "read_bytes",
    "write_ops",
    "write_bytes",
    "io_time_ms",
    "weighted_io_time_ms",
}


def values(samples: list[Sample]) -> dict[tuple[str, str], float]:
    """Give the values by device and short name."""
    found: dict[tuple[str, str], float] = {}
    for s in samples:
        assert s.timestamp_ms == NOW_MS
        ((key, device),) = s.series.tags
        assert key == "device"
        name = s.series.name.removeprefix("disk.").removesuffix("_total")
        assert f"disk.{name}_total" == s.series.name
        found[device, name] = float(s.value)
    assert len(found) == len(samples)
    return found


def devices(samples: list[Sample]) -> set[str]:
    """Give the devices, each of which must have all metrics."""
    found = values(samples)
    names = {device for device, _ in found}
    assert found.keys() == {(device, name) for device in names for name in NAMES}
    return names


def test_the_board() -> None:
    """Each column goes to its metric; the rates of ten seconds are those of the board."""
    board = procfs("orangepi5plus")
    collector = DiskIO("box", board, sysfs("orangepi5plus"))
    before = collector.collect(NOW_MS)
    assert devices(before) == {"mmcblk0", "mmcblk1", "nvme0n1"}
    first = values(before)
    assert {name: first["nvme0n1", name] for name in NAMES} == {
        "read_ops": 9173,
        "read_bytes": 742106 * 512,
        "write_ops": 15284,
        "write_bytes": 1219472 * 512,
        "io_time_ms": 9216,
        "weighted_io_time_ms": 6688,
    }
    board.become("orangepi5plus-t10")
    second = values(collector.collect(NOW_MS))
    grown = {key: second[key] - first[key] for key in first}
    assert grown["mmcblk0", "read_bytes"] == 8192
    assert grown["mmcblk0", "write_bytes"] == 327680
    assert grown["nvme0n1", "read_bytes"] == 49152
    assert grown["nvme0n1", "write_bytes"] == 753664
    assert grown["mmcblk1", "write_bytes"] == 0


@pytest.mark.parametrize("variant", ["diskstats-14-fields", "diskstats-18-fields"])
def test_older_kernels_give_the_same(variant: str) -> None:
    """What newer kernels add changes nothing."""
    reports = [
        DiskIO("box", procfs(tree), sysfs("orangepi5plus")).collect(NOW_MS)
        for tree in ("orangepi5plus", f"variants/{variant}")
    ]
    assert reports[0] == reports[1]


def test_partitions_and_boot_areas_are_no_disks() -> None:
    """Neither mmcblk0boot0, nor the mmcblk0rpmb of old kernels, nor a partition is reported."""
    found = DiskIO("box", procfs("variants/diskstats-old-rpmb"), sysfs()).collect(NOW_MS)
    assert devices(found) == {"mmcblk0", "mmcblk1", "nvme0n1"}


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("zram", set()),
        ("zram0", {"zram0"}),
        ("mmcblk0.*", {"mmcblk0", "mmcblk0p1", "mmcblk0p2", "mmcblk0boot0", "mmcblk0boot1"}),
        ("mmcblk0|nvme0n1", {"mmcblk0", "nvme0n1"}),
        ("^loop[01]$", {"loop0", "loop1"}),
        ("", {"mmcblk0", "mmcblk1", "nvme0n1"}),
    ],
)
def test_a_pattern_matches_the_whole_name(pattern: str, expected: set[str]) -> None:
    """A pattern that matches a part of a name does not allow it; an empty one is the default."""
    board = procfs("orangepi5plus")
    assert (
        devices(DiskIO("box", board, sysfs(), allowed_devices=pattern).collect(NOW_MS)) == expected
    )


@pytest.mark.parametrize(("sector_size", "bytes_"), [("kernel", 512), ("logical", 4096)])
def test_sectors(sector_size: str, bytes_: int) -> None:
    """The kernel counts in 512 bytes on every device; the logical size multiplies it."""
    trees = ("variants/nvme-4kn", "orangepi5plus")
    collector = DiskIO("box", procfs(*trees), sysfs(*trees), sector_size=sector_size)
    found = values(collector.collect(NOW_MS))
    assert found["nvme0n1", "read_bytes"] == 742106 * bytes_
    assert found["nvme0n1", "write_bytes"] == 1219472 * bytes_
    assert found["nvme0n1", "read_ops"] == 9173


def test_the_block_size_is_read_once_and_only_if_wanted() -> None:
    """It is kept per device, for as long as the device is there."""
    board, sys = procfs("orangepi5plus"), sysfs("orangepi5plus")
    kernel = DiskIO("box", board, sys)
    kernel.collect(NOW_MS)
    assert sys.reads == {}
    logical = DiskIO("box", board, sys, sector_size="logical")
    for _ in range(3):
        logical.collect(NOW_MS)
    assert set(sys.reads.values()) == {1}
    assert len(sys.reads) == 3
    board.texts["diskstats"] = b""
    assert logical.collect(NOW_MS) == []
    board.texts.clear()
    logical.collect(NOW_MS)
    assert set(sys.reads.values()) == {2}


def test_a_slash_in_a_name_is_written_otherwise_in_sysfs() -> None:
    """As for the first RAID controllers."""
    board, sys = procfs("vm"), sysfs("vm")
    board.texts["diskstats"] = b"104 0 cciss/c0d0 1 0 1 0 1 0 1 0 0 0 0\n"
    sys.texts["block/cciss!c0d0/queue/logical_block_size"] = b"4096\n"
    collector = DiskIO("box", board, sys, allowed_devices="cciss.*", sector_size="logical")
    assert values(collector.collect(NOW_MS))["cciss/c0d0", "read_bytes"] == 4096


@pytest.mark.parametrize(
    ("machine", "pattern", "expected"),
    [("vm", "", set()), ("vm", "vd[a-z]+", {"vda"}), ("container", "", set())],
)
def test_other_machines(machine: str, pattern: str, expected: set[str]) -> None:
    """No disk that is allowed, and no table of disks at all, are no errors."""
    collector = DiskIO("box", procfs(machine), sysfs(machine), allowed_devices=pattern)
    assert devices(collector.collect(NOW_MS)) == expected


def test_a_table_that_cannot_be_read_is_an_error() -> None:
    """Only a missing table says that there are no disks."""
    board = procfs("orangepi5plus")
    board.faults["diskstats"] = ReadError("diskstats: Permission denied (EACCES)")
    with pytest.raises(ReadError, match="EACCES"):
        DiskIO("box", board, sysfs()).collect(NOW_MS)
    board.faults.clear()
    board.texts["diskstats"] = b"garbage\n"
    with pytest.raises(ParseError):
        DiskIO("box", board, sysfs()).collect(NOW_MS)


class Log(SynchronousTestCase):
    def test_an_unknown_block_size_falls_back_and_says_so_once(self) -> None:
        """512 is assumed for as long as the device is there, so that its counter never jumps."""
        sys = sysfs("vm")
        path = "block/vda/queue/logical_block_size"
        sys.faults[path] = ReadError(f"{path}: Input/output error (EIO)")
        collector = DiskIO("box", procfs("vm"), sys, allowed_devices="vda", sector_size="logical")
        with capturedLogs() as events:
            first = values(collector.collect(NOW_MS))
            sys.faults.clear()
            sys.texts[path] = b"4096\n"
            second = values(collector.collect(NOW_MS))
        assert first == second
        assert first["vda", "read_bytes"] == 1204118 * 512
        assert [formatEvent(event) for event in events] == [
            f"vda is counted in sectors of 512 bytes: {path}: Input/output error (EIO)"
        ]
