"""The getter is made when the first source asks for it."""

import subprocess
import sys
from pathlib import Path

import pytest
from twisted.internet.testing import MemoryReactorClock

from belatwist.errors import ConfigError
from belatwist.http.get import HttpGetter
from belatwist.http.lazy import lazy_getter


def test_all_sources_share_one() -> None:
    """The reactor is asked for once, and not before."""
    asked = 0

    def load_reactor() -> MemoryReactorClock:
        nonlocal asked
        asked += 1
        return MemoryReactorClock()

    load = lazy_getter(load_reactor, None)
    assert asked == 0
    getter = load()
    assert isinstance(getter, HttpGetter)
    assert load() is getter
    assert asked == 1


def test_a_bad_file_of_authorities(tmp_path: Path) -> None:
    """It is refused in the words that the uploader has for it."""
    load = lazy_getter(MemoryReactorClock, str(tmp_path / "none.pem"))
    with pytest.raises(ConfigError, match=r"^remote\.tls_ca_file: .*none\.pem: cannot be read"):
        load()


@pytest.mark.process
def test_the_agent_does_not_load_it() -> None:
    """Half a megabyte is for those who have such a source."""
    code = "import belatwist.tap, belatwist.app, sys; print('belatwist.http.get' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "False\n"
