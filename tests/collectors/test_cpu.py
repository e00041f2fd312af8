"""How busy the cores were."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from belatwist.collectors.cpu import CoreTimes, CpuUsage, delta, parse
from belatwist.errors import ParseError, ReadError
from belatwist.model import Sample
from tests.collectors import kernel_texts
from tests.fixture_trees import NOW_MS, machine, procfs
from tests.log_events import shown

BOARD = (kernel_texts.FIXTURES / "orangepi5plus/proc/stat").read_bytes()
CORE = b"cpu0 1 2 3 4 5 6 7 8 9 10\n"


def test_the_board_has_eight_cores() -> None:
    """Each online core is listed by its number; the aggregate line is no core."""
    reading = parse(BOARD)
    assert list(reading.cores) == list("01234567")
    assert reading.cores["0"] == (104212, 41, 68911, 380951, 1893, 0, 26022, 0)
    assert reading.cores["7"].softirq == 97
    assert reading.skipped == ()


def test_an_offline_core_has_no_line() -> None:
    """The other cores keep their numbers."""
    text = (kernel_texts.FIXTURES / "variants/cpu3-offline-t10/proc/stat").read_bytes()
    assert list(parse(text).cores) == list("0124567")


@pytest.mark.parametrize("columns", [8, 9, 10, 11])
def test_the_first_eight_columns_count(columns: int) -> None:
    """Guest time, which newer kernels add behind, is already inside user and nice."""
    line = b"cpu12 " + b" ".join(str(n).encode() for n in range(1, columns + 1)) + b"\n"
    assert parse(line).cores == {"12": (1, 2, 3, 4, 5, 6, 7, 8)}


@pytest.mark.parametrize(
    "line",
    [
        b"cpu1 1 2 3 4 5 6 7",
        b"cpu1 1 2 3 -4 5 6 7 8 9 10",
        b"cpu1 1 2 3 +4 5 6 7 8 9 10",
        b"cpu1 1 2 3 4_0 5 6 7 8 9 10",
        b"cpu1 1 2 3 4.0 5 6 7 8 9 10",
        b"cpu1 1 2 3 0x4 5 6 7 8 9 10",
        b"cpu1 1 2 3 4 5 6 7 8 9 x",
        b"cpu1 1 2 3 18446744073709551616 5 6 7 8 9 10",
        b"cpu1 1 2 3 4 5 6 7 18446744073709551000 9 10",
        b"cpu1 1 2 3 " + b"0" * 30 + b" 5 6 7 8 9 10",
        "cpu1 1 2 3 ٤ 5 6 7 8 9 10".encode(),
        b"cpu1 1 2 3 4\0 5 6 7 8 9 10",
        b"cpu1\t1 2 3 4 5 6 7 8 9 10",
        b"cpu01 1 2 3 4 5 6 7 8 9 10",
        b"cpuX 1 2 3 4 5 6 7 8 9 10",
        b"cpu0 9 9 9 9 9 9 9 9 9 9",
    ],
)
def test_a_malformed_or_repeated_core_is_left_out(line: bytes) -> None:
    """The line is named, the core before it is kept, and nothing is read from the line."""
    reading = parse(CORE + line + b"\n")
    assert reading.cores == {"0": (1, 2, 3, 4, 5, 6, 7, 8)}
    assert len(reading.skipped) == 1
    assert reading.skipped[0].startswith("cpu")


@pytest.mark.parametrize(
    "text",
    [b"", b"\n", CORE[:-1], b"cpu  1 2 3 4 5 6 7 8 9 10\nintr 5\n", b"cpu0 1 2\n", b"\0" * 99],
)
def test_a_text_without_a_core_is_an_error(text: bytes) -> None:
    """Nothing recognisable is an error, not an empty answer."""
    with pytest.raises(ParseError, match=r"^/proc/stat: no line of a core"):
        parse(text)


@given(kernel_texts.damaged(kernel_texts.files("proc/stat")))
def test_damage_never_makes_a_number(text: bytes) -> None:
    """Every number that is read is a whole token of a complete line."""
    reading = kernel_texts.attempt(parse, text)
    if reading is not None:
        kernel_texts.assert_skipped(reading.skipped)
        assert kernel_texts.tokens(text).issuperset(n for t in reading.cores.values() for n in t)


def test_a_cut_text_gives_no_other_values() -> None:
    """Cut at any byte, every core that is read reads as in the whole text."""
    whole = parse(BOARD).cores
    for end in range(len(BOARD)):
        reading = kernel_texts.attempt(parse, BOARD[:end])
        if reading is not None:
            assert reading.cores.items() <= whole.items()


CORES = {"0": 34.8, "1": 28.3, "2": 26.7, "3": 26.7, "4": 12.8, "5": 11.6, "6": 8.3, "7": 7.6}


def usage(samples: list[Sample]) -> dict[str, float]:
    """Give the percentages by core, after a look at names, time and tags."""
    assert {s.series.name for s in samples} <= {"cpu.usage_percent"}
    assert {s.timestamp_ms for s in samples} <= {NOW_MS}
    assert all([key for key, _ in s.series.tags] == ["core"] for s in samples)
    found = {s.series.tags[0][1]: float(s.value) for s in samples}
    assert len(found) == len(samples)
    return found


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (("orangepi5plus",), ("orangepi5plus-t10",), CORES | {"all": 19.6}),
        (
            ("orangepi5plus",),
            ("variants/cpu3-offline-t10",),
            {c: u for c, u in CORES.items() if c != "3"} | {"all": 18.59},
        ),
        (
            ("orangepi5plus",),
            ("variants/cpu3-offline-idle-backwards-t10",),
            {c: u for c, u in CORES.items() if c != "3"} | {"all": 18.59},
        ),
        (
            ("orangepi5plus",),
            ("variants/iowait-backwards-t10",),
            CORES | {"0": 34.94, "all": 19.61},
        ),
        (
            ("variants/cpu3-offline-t10",),
            ("orangepi5plus-t10",),
            {},
        ),
    ],
)
def test_the_board(
    before: tuple[str, ...], after: tuple[str, ...], expected: dict[str, float]
) -> None:
    """Cores are compared by name; waiting is idle; all is the sum over what both readings have.

    Of each there are hundredths of a percent.
    """
    board = procfs(*before)
    collector = CpuUsage(machine(board))
    assert collector.collect(NOW_MS) == []
    board.become(*after)
    assert usage(collector.collect(NOW_MS)) == pytest.approx(expected)


def test_guest_time_is_counted_once() -> None:
    """The user column includes a guest's time: the columns behind the eighth change nothing."""
    plain, guest = procfs("orangepi5plus"), procfs("variants/guest")
    collectors = [CpuUsage(machine(plain)), CpuUsage(machine(guest))]
    assert [c.collect(NOW_MS) for c in collectors] == [[], []]
    plain.become("orangepi5plus-t10")
    guest.become("orangepi5plus-t10")
    assert collectors[0].collect(NOW_MS) == collectors[1].collect(NOW_MS)


def test_a_core_that_comes_back_starts_anew() -> None:
    """While it is away it has no sample, and its first reading afterwards yields none."""
    board = procfs("orangepi5plus")
    collector = CpuUsage(machine(board))
    collector.collect(NOW_MS)
    board.become("variants/cpu3-offline-t10")
    assert "3" not in usage(collector.collect(NOW_MS))
    board.texts["stat"] = b"cpu3 99999 0 0 999999 0 0 0 0\ncpu4 55217 12 17965 508811 403 0 612 0\n"
    assert usage(collector.collect(NOW_MS)) == pytest.approx({"4": 50.0, "all": 50.0})
    board.texts["stat"] = (
        b"cpu3 99999 0 0 1000009 0 0 0 0\ncpu4 55218 12 17965 508811 403 0 612 0\n"
    )
    assert usage(collector.collect(NOW_MS)) == pytest.approx({"3": 0.0, "4": 100.0, "all": 9.09})


def test_cores_of_the_past_leave_memory() -> None:
    """Whatever names come and go, only the series of the last reading's cores are kept."""
    proc = procfs("orangepi5plus")
    collector = CpuUsage(machine(proc))
    for number in range(50):
        for busy in (1, 2):
            proc.texts["stat"] = b"cpu%d %d 0 0 9 0 0 0 0\ncpu7%d %d 0 0 9 0 0 0 0\n" % (
                (number, busy) * 2
            )
            found = usage(collector.collect(NOW_MS))
        assert found.keys() == {str(number), f"7{number}", "all"}
    assert len(collector._series) <= 5


def test_no_time_passed_yields_nothing() -> None:
    """Two equal readings divide by nothing."""
    collector = CpuUsage(machine(procfs("orangepi5plus")))
    collector.collect(NOW_MS)
    assert collector.collect(NOW_MS) == []


def test_a_lost_interval_is_no_error() -> None:
    """After a failed or unreadable reading the next delta spans both intervals."""
    board = procfs("orangepi5plus")
    collector = CpuUsage(machine(board))
    collector.collect(NOW_MS)
    board.faults["stat"] = ReadError("stat: Input/output error (EIO)")
    with pytest.raises(ReadError):
        collector.collect(NOW_MS)
    board.faults.clear()
    board.texts["stat"] = b"garbage\n"
    with pytest.raises(ParseError):
        collector.collect(NOW_MS)
    board.texts.clear()
    board.become("orangepi5plus-t10")
    assert usage(collector.collect(NOW_MS))["all"] == pytest.approx(19.6)


def test_series_are_made_once() -> None:
    """The samples of one core share one series object."""
    board = procfs("orangepi5plus")
    collector = CpuUsage(machine(board))
    collector.collect(NOW_MS)
    board.become("orangepi5plus-t10")
    first = collector.collect(NOW_MS)
    board.become("orangepi5plus")
    collector.collect(NOW_MS)
    board.become("orangepi5plus-t10")
    second = collector.collect(NOW_MS)
    assert [id(s.series) for s in first] == [id(s.series) for s in second]


ZERO = CoreTimes(0, 0, 0, 0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (ZERO, CoreTimes(1, 2, 3, 4, 5, 6, 7, 8), (27, 36)),
        (ZERO._replace(idle=100), ZERO._replace(idle=90, user=20), (20, 20)),
        (ZERO._replace(iowait=100), ZERO._replace(iowait=90, user=5, idle=15), (5, 20)),
        (ZERO._replace(idle=100), ZERO._replace(idle=90, user=9), (0, 0)),
        (ZERO._replace(user=5), ZERO, (0, 0)),
        (ZERO, ZERO, (0, 0)),
    ],
)
def test_what_goes_backwards(
    before: CoreTimes, after: CoreTimes, expected: tuple[int, int]
) -> None:
    """A single column counts as unchanged, a total that goes backwards as nothing."""
    assert delta(before, after) == expected


_TIMES = st.lists(st.integers(0, 2**64 - 1), min_size=8, max_size=8).map(CoreTimes._make)


@given(_TIMES, _TIMES)
def test_usage_is_a_percentage(before: CoreTimes, after: CoreTimes) -> None:
    """For any two readings busy is between 0 and the total."""
    busy, total = delta(before, after)
    assert 0 <= busy <= total
    assert total == 0 or 0.0 <= 100 * busy / total <= 100.0


class Log(SynchronousTestCase):
    def test_a_core_whose_counters_fell_is_logged_once(self) -> None:
        """The columns are named; a core whose idle time flips has a line in ten minutes."""
        board, clock = procfs("orangepi5plus"), Clock()
        collector = CpuUsage(machine(board, seconds=clock.seconds))
        with capturedLogs() as events:
            for tick in range(361):
                idle = 100 * tick - 150 * (tick % 2)
                board.texts["stat"] = b"cpu0 %d 0 0 %d 0 0 0 0\ncpu1 %d 0 0 9 5 0 0 0\n" % (
                    tick,
                    idle + 1000,
                    0 if tick == 360 else tick,
                )
                collector.collect(NOW_MS)
                clock.advance(10)
        lines = shown(events)
        assert lines[0] == "Counters of core 0 went backwards: idle"
        assert lines[-1] == "Counters of core 1 went backwards: user"
        assert len(lines) == 3600 // 600 + 1

    def test_malformed_lines_are_logged_when_they_begin_and_end(self) -> None:
        """A condition that lasts is logged once, although its text differs each time."""
        board = procfs("orangepi5plus")
        collector = CpuUsage(machine(board))
        texts = []
        for text in (b"", b"cpu1 1 x\n", b"cpu1 2 x\n", b"cpu1 3 x\n", b"", b""):
            board.texts["stat"] = b"cpu0 1 2 3 4 5 6 7 8\n" + text
            with capturedLogs() as events:
                collector.collect(NOW_MS)
            texts.append(shown(events))
        assert texts == [
            [],
            ["Lines of /proc/stat that are not as documented are left out: cpu1 1 x"],
            [],
            [],
            ["All lines of /proc/stat are as documented again, after 0 s and 3 failures"],
            [],
        ]

    def test_lines_that_come_and_go_do_not_fill_the_log(self) -> None:
        """A kernel that writes an odd line every other time: one line in ten minutes."""
        board, clock = procfs("orangepi5plus"), Clock()
        collector = CpuUsage(machine(board, seconds=clock.seconds))
        with capturedLogs() as events:
            for tick in range(360):
                board.texts["stat"] = b"cpu0 1 2 3 4 5 6 7 8\n" + b"cpu1 x\n" * (tick % 2)
                collector.collect(NOW_MS)
                clock.advance(10)
        assert len(shown(events)) == 2 + 5
