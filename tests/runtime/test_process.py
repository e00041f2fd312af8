"""The set-up of the process."""

import subprocess
import sys

import pytest

from tests.process import TIMEOUT

pytestmark = pytest.mark.process

# The plugin is imported for what it brings: the more there is, the longer rounds were put off.
FULL_ROUNDS = """
import gc
from twisted.internet import reactor
from belatwist import tap
from belatwist.runtime import process
def full_rounds():
    return gc.get_stats()[2]["collections"]
def count():
    before = full_rounds()
    for _ in range(20 * gc.get_threshold()[0] * gc.get_threshold()[1]):
        cycle = []
        cycle.append(cycle)
    print(full_rounds() - before)
    reactor.stop()
process.configure_process(reactor, on_hangup=print)
reactor.callWhenRunning(count)
reactor.run()
"""


def test_garbage_does_not_gather_until_it_is_as_much_as_was_imported() -> None:
    """Full rounds of the garbage collector are not put off by what was there at the start."""
    found = subprocess.run(
        [sys.executable, "-c", FULL_ROUNDS],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=True,
    )
    assert int(found.stdout) > 0
