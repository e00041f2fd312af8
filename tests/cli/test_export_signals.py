"""``bela export`` at a signal."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.running import CHECKOUT, bela, make, ticks
from tests.process import TIMEOUT
from tests.store.databases import LOAD


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database with ten samples of one series."""
    return make(tmp_path / "m.db", ticks(LOAD, 1000, 10))


# Sends itself a signal when everything is written, and before the file has its name.
SIGNALLED = """
import os, signal, sys
from pathlib import Path
number, ignored, folder, after = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), sys.argv[4]
def written(_):
    print(len(list(folder.iterdir())))
    try:
        os.kill(os.getpid(), number)
    except SystemExit:
        if after == "goes on":
            return
        if after == "fails":
            raise OSError(5, "Input/output error")
        os.kill(os.getpid(), number)
        raise
os.fsync = written
# Whoever runs the tests may have it ignored, as nohup does, and that is inherited.
signal.signal(number, signal.SIG_IGN if ignored else signal.SIG_DFL)
sys.argv[1:] = sys.argv[5:]
from belatwist.cli import main
main()
"""


def signalled(
    path: Path, number: signal.Signals, ignored: str, after: str
) -> "subprocess.CompletedProcess[str]":
    """Export over an existing file, and send a signal meanwhile."""
    folder = path.parent / "to"
    folder.mkdir()
    to = folder / "out.jsonl"
    to.write_text("precious")
    return subprocess.run(
        [
            *(sys.executable, "-c", SIGNALLED, str(number.value), ignored, str(folder), after),
            *("export", "-d", str(path), "--all", "--force", "-o", str(to)),
        ],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
    )


@pytest.mark.process
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("after", ["comes again", "fails", "goes on"])
def test_a_signal_leaves_the_old_file(path: Path, number: signal.Signals, after: str) -> None:
    """No other file is left, and the exit status is the shells' for that signal.

    The same holds if the signal comes twice, if something fails at the exit (such as a closed
    terminal), or if the exception gets lost, as in a finaliser.
    """
    done = signalled(path, number, "", after)
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, "2\n", "")
    (left,) = (path.parent / "to").iterdir()
    assert left.read_text() == "precious"


@pytest.mark.process
def test_a_signal_that_is_ignored(path: Path) -> None:
    """Under ``nohup`` the export continues without its terminal."""
    done = signalled(path, signal.SIGHUP, "ignored", "")
    assert (done.returncode, done.stdout) == (0, "2\n")
    (made,) = (path.parent / "to").iterdir()
    assert len(made.read_text().splitlines()) == 1


def test_signals_are_as_they_were(path: Path, tmp_path: Path) -> None:
    """After the export the signals have their usual effect again."""
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)]
    assert bela("export", "-d", path, "--all", "-o", tmp_path / "out").exit_code == 0
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)] == before
