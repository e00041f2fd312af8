"""The system's clocks."""

from pathlib import Path

from belatwist.clock import sources
from belatwist.clock.sources import Clocks


def test_the_system_answers() -> None:
    """The real clocks are read, and the kernel is asked without an error."""
    wall, offset = Clocks().read()
    assert abs(wall - sources.wall_ms()) < 1000
    assert abs(wall - sources.boot_ms() - offset) < 1000
    assert sources.kernel_synchronised() in {True, False, None}
    assert len(sources.boot_id()) in {0, 36}


def test_an_unreadable_boot_id_is_unknown(tmp_path: Path) -> None:
    """Where the kernel does not say, it is empty."""
    assert sources.boot_id(tmp_path / "none") == ""
