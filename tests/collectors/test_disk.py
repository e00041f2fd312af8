"""The disks."""

from contextlib import nullcontext
from typing import Literal

import pytest
from hypothesis import given
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from belatwist.collectors.disk import DiskIO, DiskIOOptions, Diskstats, parse, parse_block_size
from belatwist.errors import AbsentError, HiddenError, ParseError, ReadError
from belatwist.model import Sample
from tests.collectors import kernel_texts
from tests.fixture_trees import NOW_MS, machine, procfs, sysfs
from tests.log_events import shown

BOARD = (kernel_texts.FIXTURES / "orangepi5plus/proc/diskstats").read_bytes()
GOOD = b"   8       0 sda 1 2 3 4 5 6 7 8 9 10 11\n"
SDA = {"sda": (1, 3, 5, 7, 10, 11)}


def test_the_table_of_the_board() -> None:
    """Operations, sectors and times come from their columns."""
    reading = parse(BOARD)
    assert len(reading.devices) == 19
    assert reading.devices["nvme0n1"] == (9173, 742106, 15284, 1219472, 9216, 6688)
    assert reading.skipped == ()


@pytest.mark.parametrize("fields", [14, 18])
def test_older_kernels_write_fewer_columns(fields: int) -> None:
    """The columns that 4.18 and 5.5 added come last and change nothing."""
    variant = kernel_texts.FIXTURES / f"variants/diskstats-{fields}-fields/proc/diskstats"
    assert parse(variant.read_bytes()) == parse(BOARD)


def test_newer_kernels_may_write_more_columns() -> None:
    """The kernel adds statistics at the end."""
    line = GOOD[:-1] + b" 0 0 0 0 0 0 0 0\n"
    assert parse(line).devices == SDA


def test_requests_in_flight_may_be_negative() -> None:
    """Some drivers count them badly; they are not used."""
    assert parse(GOOD.replace(b" 9 ", b" -1 ")).devices == SDA


def test_no_block_device_is_legal() -> None:
    """An empty table is an answer, not an error."""
    assert parse(b"") == Diskstats({})


@pytest.mark.parametrize(
    "line",
    [
        b" 8 1 sdb 1 2 3 4 5 6 7 8 9 10",
        b" 8 1 sdb 1 2 3 4 5 6 7 8 9 10 11 12",
        b" 8 1 sdb 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16",
        b" 8 1 sdb 1 2 -3 4 5 6 7 8 9 10 11",
        b" 8 1 sdb 1 2 3 4 5 6 7 8 9 1_0 11",
        b" 8 1 sdb 1 2 3 x 5 6 7 8 9 10 11",
        b" 8 1 sdb 1 2 18446744073709551616 4 5 6 7 8 9 10 11",
        b" 8 1 sd\0b 1 2 3 4 5 6 7 8 9 10 11",
        b" 8 sdb 1 2 3 4 5 6 7 8 9 10 11",
        b" 8 1 " + b"x" * 65 + b" 1 2 3 4 5 6 7 8 9 10 11",
        b" 8 0 sda 9 9 9 9 9 9 9 9 9 9 9",
        b" 8 1 sdb 1 2 3 4 5 6 7 8 9 10 11\r",
    ],
)
def test_a_malformed_or_repeated_device_is_left_out(line: bytes) -> None:
    """The line is named and the others are kept."""
    reading = parse(GOOD + line + b"\n")
    assert reading.devices == SDA
    assert len(reading.skipped) == 1


def test_only_what_is_wanted_is_looked_at() -> None:
    """A malformed line of another device is not reported; a line without a name is."""
    text = GOOD + b" 8 1 sdb 1 2 x\n 8 2\n 7 0 sd\xff 1\n"
    asked: list[str] = []

    def wanted(name: str) -> bool:
        asked.append(name)
        return name == "sda"

    reading = parse(text, wanted)
    assert reading.devices == SDA
    assert reading.skipped == (" 8 2",)
    assert asked == ["sda", "sdb", "sd\\xff"]
    assert parse(GOOD, lambda _: False) == Diskstats({})


def test_a_name_that_is_not_utf8_is_escaped() -> None:
    """Names are decoded without loss of lines."""
    assert list(parse(GOOD.replace(b"sda", b"sd\xff")).devices) == ["sd\\xff"]


@pytest.mark.parametrize("text", [b"garbage\n", GOOD[:-1], b"\0\n"])
def test_a_text_without_a_device_is_an_error(text: bytes) -> None:
    """Lines of which none can be read are an error."""
    with pytest.raises(ParseError, match=r"^/proc/diskstats: no line of a device"):
        parse(text)


@given(kernel_texts.damaged(kernel_texts.files("proc/diskstats")))
def test_damage_never_makes_a_number(text: bytes) -> None:
    """Every number that is read is a whole token of a complete line."""
    reading = kernel_texts.attempt(parse, text)
    if reading is not None:
        kernel_texts.assert_skipped(reading.skipped)
        assert kernel_texts.tokens(text).issuperset(n for c in reading.devices.values() for n in c)


def test_a_cut_text_gives_no_other_values() -> None:
    """Cut at any byte, every device that is read reads as in the whole text."""
    whole = parse(BOARD).devices
    for end in range(len(BOARD)):
        reading = kernel_texts.attempt(parse, BOARD[:end])
        if reading is not None:
            assert reading.devices.items() <= whole.items()


@pytest.mark.parametrize(("content", "size"), [(b"512\n", 512), (b"4096\n", 4096)])
def test_a_block_size_is_read(content: bytes, size: int) -> None:
    """Powers of two from 512 on."""
    assert parse_block_size(content, "f") == size


@pytest.mark.parametrize(
    "content", [b"", b"409", b"0\n", b"256\n", b"513\n", b"-512\n", b"4_096\n"]
)
def test_anything_else_is_no_block_size(content: bytes) -> None:
    """A cut or impossible size is an error that names the file."""
    with pytest.raises(ParseError, match=r"^/sys/f: '.*' is not a block size$"):
        parse_block_size(content, "/sys/f")


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
    collector = DiskIO(machine(board, sysfs("orangepi5plus")), DiskIOOptions())
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
    """The columns that newer kernels add change nothing."""
    reports = [
        DiskIO(machine(procfs(tree), sysfs("orangepi5plus")), DiskIOOptions()).collect(NOW_MS)
        for tree in ("orangepi5plus", f"variants/{variant}")
    ]
    assert reports[0] == reports[1]


def test_partitions_and_boot_areas_are_no_disks() -> None:
    """Neither mmcblk0boot0, nor the mmcblk0rpmb of old kernels, nor a partition is reported."""
    found = DiskIO(
        machine(procfs("variants/diskstats-old-rpmb"), sysfs()), DiskIOOptions()
    ).collect(NOW_MS)
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
    options = DiskIOOptions(allowed_devices=pattern)
    collector = DiskIO(machine(procfs("orangepi5plus"), sysfs()), options)
    if expected:
        assert devices(collector.collect(NOW_MS)) == expected
    else:
        with pytest.raises(AbsentError):
            collector.collect(NOW_MS)


@pytest.mark.parametrize(("sector_size", "bytes_"), [("kernel", 512), ("logical", 4096)])
def test_sectors(sector_size: Literal["kernel", "logical"], bytes_: int) -> None:
    """The kernel counts in 512 bytes on every device; the logical size multiplies it."""
    trees = ("variants/nvme-4kn", "orangepi5plus")
    collector = DiskIO(
        machine(procfs(*trees), sysfs(*trees)), DiskIOOptions(sector_size=sector_size)
    )
    found = values(collector.collect(NOW_MS))
    assert found["nvme0n1", "read_bytes"] == 742106 * bytes_
    assert found["nvme0n1", "write_bytes"] == 1219472 * bytes_
    assert found["nvme0n1", "read_ops"] == 9173


def test_the_block_size_is_read_once_and_only_if_wanted() -> None:
    """It is kept per device, for as long as the device is there."""
    board, sys = procfs("orangepi5plus"), sysfs("orangepi5plus")
    kernel = DiskIO(machine(board, sys), DiskIOOptions())
    kernel.collect(NOW_MS)
    assert sys.reads == {}
    logical = DiskIO(machine(board, sys), DiskIOOptions(sector_size="logical"))
    for _ in range(3):
        logical.collect(NOW_MS)
    assert set(sys.reads.values()) == {1}
    assert len(sys.reads) == 3
    board.texts["diskstats"] = b""
    with pytest.raises(AbsentError, match="no disk that allowed_devices allows"):
        logical.collect(NOW_MS)
    board.texts.clear()
    logical.collect(NOW_MS)
    assert set(sys.reads.values()) == {2}


def test_a_slash_in_a_name_is_written_otherwise_in_sysfs() -> None:
    """As for the first RAID controllers."""
    board, sys = procfs("vm"), sysfs("vm")
    board.texts["diskstats"] = b"104 0 cciss/c0d0 1 0 1 0 1 0 1 0 0 0 0\n"
    sys.texts["block/cciss!c0d0/queue/logical_block_size"] = b"4096\n"
    collector = DiskIO(
        machine(board, sys), DiskIOOptions(allowed_devices="cciss.*", sector_size="logical")
    )
    assert values(collector.collect(NOW_MS))["cciss/c0d0", "read_bytes"] == 4096


def test_another_machine() -> None:
    """A virtual disk is reported where it is allowed."""
    options = DiskIOOptions(allowed_devices="vd[a-z]+")
    collector = DiskIO(machine(procfs("vm"), sysfs("vm")), options)
    assert devices(collector.collect(NOW_MS)) == {"vda"}


@pytest.mark.parametrize(
    ("tree", "what"), [("vm", "no disk that allowed_devices allows"), ("container", "No such file")]
)
def test_a_machine_without_disks(tree: str, what: str) -> None:
    """No disk that is allowed, and no table of disks at all, are absence, and are told apart."""
    with pytest.raises(AbsentError, match=what):
        DiskIO(machine(procfs(tree), sysfs(tree)), DiskIOOptions()).collect(NOW_MS)


def test_without_procfs_the_disks_are_hidden() -> None:
    """Where ``/proc`` has not even ``stat`` there may be disks, as with ``ProcSubset=pid``."""
    with pytest.raises(HiddenError, match=r"/stat: .*, although every kernel has it$") as caught:
        DiskIO(machine(procfs("nowhere"), sysfs("vm")), DiskIOOptions()).collect(NOW_MS)
    assert "ProcSubset=pid" in caught.value.cure


def test_a_table_that_cannot_be_read_is_an_error() -> None:
    """Only a missing table says that there are no disks."""
    board = procfs("orangepi5plus")
    board.faults["diskstats"] = ReadError("diskstats: Permission denied (EACCES)")
    with pytest.raises(ReadError, match="EACCES"):
        DiskIO(machine(board, sysfs()), DiskIOOptions()).collect(NOW_MS)
    board.faults.clear()
    board.texts["diskstats"] = b"garbage\n"
    with pytest.raises(ParseError):
        DiskIO(machine(board, sysfs()), DiskIOOptions()).collect(NOW_MS)


MULTIPATH = (
    kernel_texts.FIXTURES / "variants/diskstats-nvme-multipath/proc/diskstats"
).read_bytes()
HEAD = b" 259 0 nvme0n1 %d 0 8 0 %d 0 8 0 0 1 1\n"
PATHS = b" 259 1 nvme0c0n1 5 0 80 0 5 0 80 0 0 1 1\n 259 2 nvme0c1n1 7 0 80 0 7 0 80 0 0 1 1\n"
STACKED = b" 253 0 dm-0 9 0 9 0 9 0 9 0 0 9 9\n 9 0 md0 9 0 9 0 9 0 9 0 0 9 9\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (MULTIPATH, {"nvme0c0n1": 255999}),
        (HEAD % (12, 12) + PATHS + STACKED, {"nvme0n1": 12}),
        (b" 259 0 nvme0n1 0 0 0 0 0 0 0 0 0 0 0\n" + PATHS, {"nvme0c0n1": 5, "nvme0c1n1": 7}),
        (PATHS + b" 259 0 nvme0n1 0 0 0 0 0 0 0 0 0 0 0\n", {"nvme0c0n1": 5, "nvme0c1n1": 7}),
        (PATHS, {"nvme0c0n1": 5, "nvme0c1n1": 7}),
        (HEAD % (3, 4) + b" 259 3 nvme1n1 0 0 0 0 0 0 0 0 0 0 0\n", {"nvme0n1": 3, "nvme1n1": 0}),
    ],
)
def test_what_does_the_work_is_counted_once(text: bytes, expected: dict[str, int]) -> None:
    """An NVMe disk with several paths, or its paths; nothing that is stacked on disks."""
    board = procfs("orangepi5plus")
    board.texts["diskstats"] = text
    samples = DiskIO(machine(board), DiskIOOptions()).collect(NOW_MS)
    reads = {
        dict(s.series.tags)["device"]: s.value
        for s in samples
        if s.series.name == "disk.read_ops_total"
    }
    assert reads == expected


def test_a_pattern_of_ones_own_decides() -> None:
    """Whoever names stacked devices gets them."""
    board = procfs("orangepi5plus")
    board.texts["diskstats"] = HEAD % (12, 12) + PATHS + STACKED
    collector = DiskIO(machine(board), DiskIOOptions(allowed_devices="nvme.*|dm-.*"))
    names = {dict(s.series.tags)["device"] for s in collector.collect(NOW_MS)}
    assert names == {"nvme0n1", "nvme0c0n1", "nvme0c1n1", "dm-0"}


class Log(SynchronousTestCase):
    def test_an_unknown_block_size_falls_back_and_says_so_once(self) -> None:
        """512 is assumed for as long as the device is there, so that its counter never jumps."""
        sys = sysfs("vm")
        path = "block/vda/queue/logical_block_size"
        sys.faults[path] = ReadError(f"{path}: Input/output error (EIO)")
        collector = DiskIO(
            machine(procfs("vm"), sys), DiskIOOptions(allowed_devices="vda", sector_size="logical")
        )
        with capturedLogs() as events:
            first = values(collector.collect(NOW_MS))
            sys.faults.clear()
            sys.texts[path] = b"4096\n"
            second = values(collector.collect(NOW_MS))
        assert first == second
        assert first["vda", "read_bytes"] == 1204118 * 512
        assert shown(events) == [
            f"Disk vda is counted in sectors of 512 bytes: {path}: Input/output error (EIO)"
        ]

    def test_a_disk_that_comes_and_goes_does_not_fill_the_log(self) -> None:
        """A card reader with a bad contact: one line in ten minutes, with their number."""
        board, sys, clock = procfs("vm"), sysfs("vm"), Clock()
        path = "block/vda/queue/logical_block_size"
        sys.faults[path] = ReadError(f"{path}: Input/output error (EIO)", "EIO")
        one = machine(board, sys, seconds=clock.seconds)
        collector = DiskIO(one, DiskIOOptions(allowed_devices="vda", sector_size="logical"))
        with capturedLogs() as events:
            for tick in range(121):
                board.texts = {"diskstats": b""} if tick % 2 else {}
                with pytest.raises(AbsentError) if tick % 2 else nullcontext():
                    collector.collect(NOW_MS)
                clock.advance(10)
        first, second, third = shown(events)
        assert first.endswith("(EIO)")
        assert second.endswith("(EIO); it failed and recovered 29 times meanwhile")
        assert third.endswith("(EIO); it failed and recovered 29 times meanwhile")
