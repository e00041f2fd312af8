"""The temperatures."""

import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from belatwist.collectors.thermal import (
    ANSWER_WITHIN,
    CpuTemperature,
    CpuTemperatureOptions,
    parse_temperature,
    parse_type,
)
from belatwist.collectors.zone_types import Part, part_of
from belatwist.errors import AbsentError, HiddenError, ParseError, ReadError
from belatwist.model import Sample
from belatwist.procfs.reader import Reader
from belatwist.scheduler.service import DEADLINE
from tests.collectors import kernel_texts
from tests.fixture_trees import FIXTURES, NOW_MS, machine, sysfs
from tests.log_events import shown

BOARD = {
    "soc-thermal": 51.769,
    "bigcore0-thermal": 51.769,
    "bigcore1-thermal": 51.769,
    "littlecore-thermal": 52.692,
    "center-thermal": 50.846,
    "gpu-thermal": 50.846,
    "npu-thermal": 50.846,
}
HOTTEST = ""
ALL = [f"class/thermal/thermal_zone{n}/temp" for n in range(7)]


def degrees(samples: list[Sample]) -> dict[str, float]:
    """Give the temperatures by zone, the hottest under the empty name."""
    found: dict[str, float] = {}
    for s in samples:
        assert s.timestamp_ms == NOW_MS
        if s.series.name == "cpu.temperature":
            assert s.series.tags == ()
            zone = HOTTEST
        else:
            assert s.series.name == "thermal.zone_temp"
            ((key, zone),) = s.series.tags
            assert key == "zone"
        assert zone not in found
        found[zone] = float(s.value)
    return found


def temperature(content: bytes) -> int:
    """Parse as the file of a zone."""
    return parse_temperature(content, "/sys/zone/temp")


def zone_type(content: bytes) -> str:
    """Parse as the file of a zone."""
    return parse_type(content, "/sys/zone/type")


def collector_of(
    board: Reader,
    *,
    seconds: Callable[[], float] = lambda: 0.0,
    include_zones: tuple[str, ...] = (),
    exclude_zones: tuple[str, ...] = (),
) -> CpuTemperature:
    """Make the collector of a board."""
    options = CpuTemperatureOptions(include_zones=include_zones, exclude_zones=exclude_zones)
    return CpuTemperature(machine(sys=board, seconds=seconds), options)


@pytest.mark.parametrize("form", kernel_texts.DAMAGED_NUMBERS)
def test_a_damaged_number_is_an_error(form: str) -> None:
    """Only what the kernel writes is a number."""
    with pytest.raises(ParseError, match=r"^/sys/zone/temp: "):
        temperature(form.format("1.84").encode() + b"\n")
    if form != "-{}":
        with pytest.raises(ParseError, match=r"^/sys/zone/temp: "):
            temperature(form.format("51769").encode() + b"\n")


@pytest.mark.parametrize(
    ("parse", "content"), [(temperature, b"51769\n"), (zone_type, b"soc-thermal\n")]
)
def test_a_cut_line_is_an_error(parse: Callable[[bytes], object], content: bytes) -> None:
    """Cut at any byte, or followed by anything, nothing is read."""
    kernel_texts.assert_whole(parse, content)


@given(kernel_texts.damaged([b"51769\n", b"-1000\n"]))
def test_damage_never_makes_a_temperature(text: bytes) -> None:
    """The number that is read is the text."""
    reading = kernel_texts.attempt(temperature, text)
    if reading is not None:
        assert int(text) == reading


@given(st.binary(max_size=100) | st.text(max_size=30).map(lambda t: t.encode() + b"\n"))
def test_damage_never_makes_an_empty_type(text: bytes) -> None:
    """A type is a storable, non-empty name without a line break."""
    reading = kernel_texts.attempt(zone_type, text)
    if reading is not None:
        assert reading.strip() == reading != ""
        assert "\n" not in reading
        reading.encode()


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (b"0\n", 0),
        (b"-5000\n", -5000),
        (b"2600\n", 2600),
        (b"-55000\n", -55000),
        (b"150000\n", 150000),
    ],
)
def test_temperatures_that_a_sensor_can_mean(content: bytes, value: int) -> None:
    """From the coldest to the hottest that sensors on silicon measure."""
    assert temperature(content) == value


@pytest.mark.parametrize(
    "content",
    [
        b"-55001\n",
        b"150001\n",
        b"200000\n",
        b"-256000\n",
        b"-273150\n",
        b"-274000\n",
        b"-300000\n",
        b"65535000\n",
        b"2147483647\n",
        b"-2147483648\n",
        b"2147483648\n",
        b"9999999999\n",
    ],
)
def test_what_no_sensor_can_mean_is_an_error(content: bytes) -> None:
    """The kernel's mark of no reading, those of drivers, and what is beyond a sensor's range."""
    with pytest.raises(ParseError, match="is no reading"):
        temperature(content)


@pytest.mark.parametrize("content", [b"\n", b"  \n", b"a\0b\n", b"a\nb\n", b"x" * 65 + b"\n"])
def test_a_type_is_one_short_line(content: bytes) -> None:
    """Anything else would make a bad label."""
    with pytest.raises(ParseError, match="is not a type"):
        zone_type(content)


def test_a_type_may_hold_spaces() -> None:
    """As on Intel's boards."""
    assert zone_type(b"INT3400 Thermal\n") == "INT3400 Thermal"


@pytest.mark.parametrize(
    ("trees", "expected"),
    [
        (("orangepi5plus",), BOARD | {HOTTEST: 52.692}),
        (
            ("variants/bogus-zone", "orangepi5plus"),
            BOARD | {"test_battery": 2.6, HOTTEST: 52.692},
        ),
        (
            ("variants/kernel-mainline",),  # its eighth zone, WiFi that is down, has no reading
            {
                "package-thermal": 47.153,
                "bigcore0-thermal": 47.153,
                "bigcore2-thermal": 46.23,
                "littlecore-thermal": 48.076,
                "center-thermal": 46.23,
                "gpu-thermal": 45.307,
                "npu-thermal": 45.307,
                HOTTEST: 48.076,
            },
        ),
        (
            # What is hotter than the processor: a constant, Wi-Fi, a battery, a disk. One means
            # nothing.
            ("variants/lying-zones", "orangepi5plus"),
            BOARD
            | {
                "PMIC-Die": 100.0,
                "iwlwifi_1": 71.0,
                "test_battery": 62.0,
                "nvme": 68.85,
                HOTTEST: 52.692,
            },
        ),
        (
            ("variants/x86-zones",),
            {
                "acpitz": 27.8,
                "INT3400 Thermal": 20.0,
                "SEN1": 65.05,
                "pch_cannonlake": 66.5,
                "B0D4": 58.05,
                "iwlwifi_1": 72.0,
                "x86_pkg_temp": 59.0,
                HOTTEST: 59.0,
            },
        ),
        (("variants/raspberry-zones",), {"cpu-thermal": 48.686, HOTTEST: 48.686}),
        (
            ("variants/jetson-zones",),
            {
                "AO-therm": 41.5,
                "CPU-therm": 34.0,
                "GPU-therm": 31.0,
                "PLL-therm": 31.5,
                "PMIC-Die": 100.0,
                "thermal-fan-est": 33.0,
                HOTTEST: 34.0,
            },
        ),
        (("variants/throttled", "orangepi5plus"), None),
        (("variants/kernel-6.1", "orangepi5plus"), None),
    ],
)
def test_machines(trees: tuple[str, ...], expected: dict[str, float] | None) -> None:
    """Each zone goes by its type; the hottest is the highest."""
    found = degrees(collector_of(sysfs(*trees)).collect(NOW_MS))
    if expected is not None:
        assert found == expected
    else:
        assert found.keys() == BOARD.keys() | {HOTTEST}
        assert found[HOTTEST] == max(v for zone, v in found.items() if zone != HOTTEST)


def test_a_zone_that_means_nothing_is_named() -> None:
    """It is absent, and health says so."""
    collector = collector_of(sysfs("variants/lying-zones", "orangepi5plus"))
    collector.collect(NOW_MS)
    assert collector.left_out == ("modem-thermal",)


@pytest.mark.parametrize(
    ("include", "exclude", "zones", "hottest"),
    [
        ((), ("PMIC-Die", "iwl.*", "nvme"), {*BOARD, "test_battery"}, 52.692),
        ((), (".*core.*", "[^ns].*"), {"soc-thermal", "npu-thermal", "nvme"}, 51.769),
        (("soc-thermal", "PMIC.*"), (), {"soc-thermal", "PMIC-Die"}, 100),
        (("gpu-.*", "npu-.*"), ("npu-thermal",), {"gpu-thermal"}, 50.846),
    ],
)
def test_zones_that_are_wanted(
    include: tuple[str, ...], exclude: tuple[str, ...], zones: set[str], hottest: float
) -> None:
    """Exclusions win. The hottest is one of the inclusions, whatever they are."""
    board = sysfs("variants/lying-zones", "orangepi5plus")
    collector = collector_of(board, include_zones=include, exclude_zones=exclude)
    found = degrees(collector.collect(NOW_MS))
    assert found.pop(HOTTEST) == hottest
    assert found.keys() == zones


def test_a_machine_without_a_zone_that_is_wanted() -> None:
    """The reason is the configuration."""
    collector = collector_of(sysfs("orangepi5plus"), include_zones=("soc",))
    with pytest.raises(AbsentError, match="no zone that the configuration lets through"):
        collector.collect(NOW_MS)


def test_an_excluded_zone_is_not_read() -> None:
    """It may be one whose driver makes trouble."""
    board = sysfs("orangepi5plus")
    collector_of(board, exclude_zones=("soc-thermal",)).collect(NOW_MS)
    assert ALL[0] not in board.reads
    assert ALL[1] in board.reads


def test_another_zone_does_not_take_the_processors_place() -> None:
    """Where all of the processor's zones fail, its temperature is absent."""
    board = sysfs("variants/lying-zones", "orangepi5plus")
    board.faults = {path: ReadError(f"{path}: Input/output error (EIO)", "EIO") for path in ALL}
    found = degrees(collector_of(board).collect(NOW_MS))
    assert found.keys() == {"PMIC-Die", "iwlwifi_1", "test_battery", "nvme"}


@pytest.mark.parametrize(
    ("types", "part"),
    [
        (
            "soc-thermal bigcore0-thermal bigcore1-thermal bigcore2-thermal littlecore-thermal "
            "little-core-thermal center-thermal gpu-thermal npu-thermal package-thermal "
            "cpu-thermal cpu_thermal cpu0-thermal cpu_thermal_zone cpul_thermal_zone "
            "bcm2835_thermal "
            "x86_pkg_temp TCPU TCPU_PCI B0D4 coretemp soc_thermal ddr-thermal gpu_thermal "
            "cpuss0-thermal cpu-0-0-top-thermal cpu1-gold-usr mtktscpu cpu-big0-thermal "
            "CPU-therm MCPU-therm BCPU-therm GPU-therm tj-thermal imx_thermal_zone ap-cpu0-thermal "
            "cluster0-thermal BIG LITTLE apcpu0-thmzone tsens_tz_sensor0",
            Part.PROCESSOR,
        ),
        ("acpitz AO-therm PLL-therm thermal-fan-est main0-thermal", Part.UNKNOWN),
        (
            "PMIC-Die iwlwifi iwlwifi_1 mt7915_phy0 ath11k_hwmon battery test_battery bat0 nvme "
            "pm8150b-thermal pmk8350-thermal pch_cannonlake SEN1 Tboard_tegra skin-thermal "
            "mtktsbattery-battery charger modem-thermal wlan-thermal cpu-pmic-thermal usb_conn-usb",
            Part.OTHER,
        ),
    ],
)
def test_what_a_zone_measures(types: str, part: Part) -> None:
    """By its type, on kernels old and new."""
    assert {one: part_of(one) for one in types.split()} == dict.fromkeys(types.split(), part)
    assert part_of("INT3400 Thermal") == Part.OTHER


@pytest.mark.parametrize("tree", ["vm", "container"])
def test_a_machine_without_zones(tree: str) -> None:
    """It has no such thing, whether the folder is empty or missing."""
    with pytest.raises(AbsentError, match=r"/class/thermal has no thermal zone$"):
        collector_of(sysfs(tree)).collect(NOW_MS)


def test_without_sysfs_the_zones_are_hidden() -> None:
    """Where ``/sys`` is not mounted there may be zones: it is not absence."""
    with pytest.raises(HiddenError, match=r"/class: .*, although every kernel has it$"):
        collector_of(sysfs("nowhere")).collect(NOW_MS)


def test_zones_that_may_not_be_read_are_hidden() -> None:
    """All of them denied: the cure is that of the first. One that fails otherwise: a failure."""
    board = sysfs("orangepi5plus")
    zones = [name for name in board.entries("class/thermal") if name.startswith("thermal_zone")]
    for name in zones:
        board.faults[f"class/thermal/{name}/temp"] = HiddenError(f"{name} is denied", "a group")
    with pytest.raises(HiddenError, match="is denied") as caught:
        collector_of(board).collect(NOW_MS)
    assert caught.value.cure == "a group"
    board.faults[f"class/thermal/{zones[-1]}/temp"] = ReadError("temp: (EIO)", "EIO")
    with pytest.raises(ReadError, match="no thermal zone can be read"):
        collector_of(board).collect(NOW_MS)


def test_a_failing_sensor_is_left_out() -> None:
    """The others are reported, and the hottest is the hottest of those."""
    board = sysfs("orangepi5plus")
    board.faults[ALL[3]] = ReadError("temp: Resource temporarily unavailable (EAGAIN)")
    board.texts[ALL[0]] = b"5176"
    board.texts[ALL[1]] = b"-274000\n"
    found = degrees(collector_of(board).collect(NOW_MS))
    assert found == {
        "bigcore1-thermal": 51.769,
        "center-thermal": 50.846,
        "gpu-thermal": 50.846,
        "npu-thermal": 50.846,
        HOTTEST: 51.769,
    }


def test_all_sensors_failing_is_an_error() -> None:
    """A board with zones and no reading has a fault that must show; it heals by itself."""
    board = sysfs("orangepi5plus")
    collector = collector_of(board)
    collector.collect(NOW_MS)
    board.faults = {path: ReadError(f"{path}: Input/output error (EIO)") for path in ALL}
    with pytest.raises(ReadError, match=r"^no thermal zone can be read: .*zone0/temp: .*EIO"):
        collector.collect(NOW_MS)
    board.faults = {}
    assert degrees(collector.collect(NOW_MS)) == BOARD | {HOTTEST: 52.692}


def test_an_unreadable_directory_is_an_error() -> None:
    """Only a missing directory means that there are no zones."""
    board = sysfs("orangepi5plus")
    board.faults["class/thermal"] = ReadError("class/thermal: Permission denied (EACCES)")
    with pytest.raises(ReadError, match="EACCES"):
        collector_of(board).collect(NOW_MS)


def test_types_are_read_once() -> None:
    """A tick costs a listing, and a read for each zone."""
    board = sysfs("orangepi5plus")
    collector = collector_of(board)
    for _ in range(3):
        collector.collect(NOW_MS)
    assert {path.rsplit("/", 1)[1]: n for path, n in board.reads.items()} == {"type": 1, "temp": 3}
    assert len(board.reads) == 14


def test_a_type_that_cannot_be_read_is_tried_again() -> None:
    """A zone without a type has no name to be reported under."""
    board = sysfs("orangepi5plus")
    board.faults["class/thermal/thermal_zone0/type"] = ReadError("type: EIO")
    collector = collector_of(board)
    assert "soc-thermal" not in degrees(collector.collect(NOW_MS))
    board.faults = {}
    assert degrees(collector.collect(NOW_MS)) == BOARD | {HOTTEST: 52.692}


def make_zone(root: Path, number: int, kind: str, temperature: int) -> Path:
    """Make a zone as sysfs has it: a link in the class directory to a directory elsewhere."""
    device = root / "devices" / f"{kind}-{number}-{temperature}"
    device.mkdir(parents=True)
    (device / "type").write_text(f"{kind}\n")
    (device / "temp").write_text(f"{temperature}\n")
    link = root / "class" / "thermal" / f"thermal_zone{number}"
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(device)
    return link


def test_zones_of_one_type_are_told_apart(tmp_path: Path) -> None:
    """The lowest number keeps the type, the others add theirs, in the order of the numbers."""
    for number, temperature in ((10, 30000), (2, 20000), (9, 25000)):
        make_zone(tmp_path, number, "nvme", temperature)
    make_zone(tmp_path, 11, "nvme-10", 40000)
    found = degrees(collector_of(Reader(str(tmp_path))).collect(NOW_MS))
    assert found == {
        "nvme": 20.0,
        "nvme-9": 25.0,
        "nvme-10": 30.0,
        "nvme-10-11": 40.0,
        HOTTEST: 40.0,
    }


@pytest.mark.parametrize("file", ["temp", "type"])
def test_a_zone_that_hangs_costs_only_itself(tmp_path: Path, file: str) -> None:
    """The others and the hottest of them are there, at each tick; the one is named.

    It is not read again while its read hangs, and it recovers when that returns.
    """
    for number, (kind, heat) in enumerate(BOARD.items()):
        make_zone(tmp_path, number, kind, round(heat * 1000))
    path = tmp_path / "class/thermal/thermal_zone6" / file
    answer = path.read_text()
    path.unlink()
    os.mkfifo(path)
    clock = Clock()
    collector = collector_of(Reader(str(tmp_path)), seconds=clock.seconds)
    name = "npu-thermal" if file == "temp" else "thermal_zone6"
    expected = BOARD | {HOTTEST: 52.692}
    del expected["npu-thermal"]
    with capturedLogs() as events:
        for _ in range(3):
            assert degrees(collector.collect(NOW_MS)) == expected
            assert collector.left_out == (name,)
    (line,) = shown(events)
    assert re.fullmatch(
        rf"Thermal zone {name} is left out: it hangs, no answer within 0\.\d s", line
    )
    path.write_text(answer)
    while collector._calls._running:
        pass
    path.unlink()
    path.write_text(answer)
    with capturedLogs() as events:
        assert degrees(collector.collect(NOW_MS)) == BOARD | {HOTTEST: 52.692}
    assert collector.left_out == ()
    assert shown(events) == [f"Thermal zone {name} recovered, after 0 s and 3 failures"]


def test_all_zones_hanging(tmp_path: Path) -> None:
    """The collector is late once, by less than a tick may last, and then says so at once."""
    for number, (kind, heat) in enumerate(BOARD.items()):
        make_zone(tmp_path, number, kind, round(heat * 1000))
    fifos = [tmp_path / f"class/thermal/thermal_zone{number}/temp" for number in range(7)]
    for fifo in fifos:
        fifo.unlink()
        os.mkfifo(fifo)
    collector = collector_of(Reader(str(tmp_path)))
    began = time.monotonic()
    for _ in range(50):
        with pytest.raises(ReadError, match="no thermal zone can be read: it hangs"):
            collector.collect(NOW_MS)
    assert time.monotonic() - began < 50 * ANSWER_WITHIN / 2
    assert ANSWER_WITHIN * 1.5 < DEADLINE
    for fifo in fifos:
        fifo.write_text("1\n")


def test_no_label_is_given_twice(tmp_path: Path) -> None:
    """Not even when a type reads like another zone's label."""
    for number, kind in enumerate(("a", "a-2", "a")):
        make_zone(tmp_path, number, kind, 20000 + number)
    found = degrees(collector_of(Reader(str(tmp_path))).collect(NOW_MS))
    assert found == {"a": 20.0, "a-2": 20.001, "a-2-2": 20.002, HOTTEST: 20.002}


def test_zones_come_and_go(tmp_path: Path) -> None:
    """A zone keeps its label while it is there; a new zone under an old number is read anew."""
    collector = collector_of(Reader(str(tmp_path)))
    (tmp_path / "class").mkdir()
    with pytest.raises(AbsentError):
        collector.collect(NOW_MS)
    first = make_zone(tmp_path, 0, "nvme", 20000)
    make_zone(tmp_path, 1, "nvme", 21000)
    assert degrees(collector.collect(NOW_MS)) == {"nvme": 20.0, "nvme-1": 21.0, HOTTEST: 21.0}
    first.rename(tmp_path / "gone")
    assert degrees(collector.collect(NOW_MS)) == {"nvme-1": 21.0, HOTTEST: 21.0}
    wifi = make_zone(tmp_path, 0, "iwlwifi_1", 35000)
    assert degrees(collector.collect(NOW_MS)) == {
        "nvme-1": 21.0,
        "iwlwifi_1": 35.0,
        HOTTEST: 35.0,
    }
    wifi.rename(tmp_path / "gone, too")
    make_zone(tmp_path, 0, "battery", 22000)
    assert degrees(collector.collect(NOW_MS)) == {"nvme-1": 21.0, "battery": 22.0, HOTTEST: 22.0}


def test_other_entries_are_no_zones(tmp_path: Path) -> None:
    """Cooling devices, and names that only look like zones, are passed over."""
    make_zone(tmp_path, 0, "soc", 20000)
    for name in ("cooling_device0", "thermal_zone", "thermal_zone1x", "thermal_zone\u0661"):
        (tmp_path / "class" / "thermal" / name).mkdir()
    found = collector_of(Reader(str(tmp_path))).collect(NOW_MS)
    assert degrees(found) == {"soc": 20.0, HOTTEST: 20.0}


def test_below_zero(tmp_path: Path) -> None:
    """Frost is no fault, and the hottest may be below zero."""
    make_zone(tmp_path, 0, "soc", -5500)
    found = collector_of(Reader(str(tmp_path))).collect(NOW_MS)
    assert degrees(found) == {"soc": -5.5, HOTTEST: -5.5}


def test_fixtures_have_their_zones() -> None:
    """The trees hold seven zones of type and temperature each."""
    for board in ("orangepi5plus", "orangepi5plus-t10"):
        assert len(list((FIXTURES / board / "sys/class/thermal").glob("*/t*"))) == 14


class Log(SynchronousTestCase):
    """The log of zones that fail, recover and disappear."""

    def setUp(self) -> None:
        self.board, self.clock = sysfs("orangepi5plus"), Clock()
        self.collector = collector_of(self.board, seconds=self.clock.seconds)

    def collect(self, error: str = "") -> list[str]:
        """Collect ten seconds after the last time, the first zone failing with an error."""
        self.clock.advance(10)
        code = error.rpartition("(")[2].rstrip(")")
        self.board.faults = {ALL[0]: ReadError(error, code)} if error else {}
        with capturedLogs() as events:
            self.collector.collect(NOW_MS)
        return shown(events)

    def test_a_failing_sensor_is_logged_when_it_begins_and_ends(self) -> None:
        """A sensor that stays dead is logged once, with its reason, and so is its return."""
        assert self.collect() == []
        assert self.collect("temp: (EAGAIN)") == [
            "Thermal zone soc-thermal is left out: temp: (EAGAIN)"
        ]
        assert self.collect("temp: (EAGAIN)") == []
        assert self.collect() == ["Thermal zone soc-thermal recovered, after 20 s and 2 failures"]
        assert self.collect() == []

    def test_a_sensor_that_alternates(self) -> None:
        """Two hours of it have 13 lines, and not 720; a new error is logged at once."""
        lines = [line for _ in range(360) for line in self.collect("(EINVAL)") + self.collect()]
        assert lines[1] == "Thermal zone soc-thermal recovered, after 10 s and 1 failure"
        assert len(lines) == 2 + 7200 // 600 - 1
        flips = "is left out: (EINVAL); it failed and recovered 29 times meanwhile"
        assert set(lines[2:]) == {f"Thermal zone soc-thermal {flips}"}
        assert self.collect("(EIO)")[0].startswith("Thermal zone soc-thermal is left out: (EIO)")

    def test_a_zone_that_is_removed_while_it_fails(self) -> None:
        """The line does not say that it recovered."""
        root = Path(self.enterContext(TemporaryDirectory()))
        make_zone(root, 0, "soc", 20000)
        bad = make_zone(root, 1, "modem", 21000)
        collector = collector_of(Reader(str(root)))
        (bad / "temp").write_text("rubbish\n")
        with capturedLogs() as events:
            collector.collect(NOW_MS)
            bad.unlink()
            collector.collect(NOW_MS)
        failed, removed = shown(events)
        assert failed.startswith("Thermal zone modem is left out: ")
        assert removed.startswith("Thermal zone modem was removed, after ")

    def test_a_type_that_is_read_in_the_end(self) -> None:
        """A zone without a type goes by its directory, and recovers under that name."""
        path = "class/thermal/thermal_zone0/type"
        self.board.faults[path] = ReadError("type: EIO", "EIO")
        with capturedLogs() as events:
            self.collector.collect(NOW_MS)
        assert shown(events) == ["Thermal zone thermal_zone0 is left out: type: EIO"]
        assert self.collect() == ["Thermal zone thermal_zone0 recovered, after 10 s and 1 failure"]
