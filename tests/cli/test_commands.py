"""The command line as a whole."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from belatwist import __version__
from belatwist.cli.commands import bela as command
from tests.cli.running import CHECKOUT, bela, make, ticks
from tests.process import write_config
from tests.store.databases import LOAD

COMMANDS = ["check", "completion", "export", "once", "status", "tail"]


def test_help() -> None:
    """The help lists every command, and each command's help explains every option."""
    assert sorted(command.commands) == COMMANDS
    listed = bela("--help").stdout.partition("Commands:")[2]
    for name in COMMANDS:
        assert f"  {name} " in listed
        assert "..." not in listed
        for flag in ("-h", "--help"):
            done = bela(name, flag)
            assert done.exit_code == 0
            assert done.stdout.startswith(f"Usage: bela {name}")


def test_version() -> None:
    """The command and the agent have the same version."""
    assert bela("--version").stdout == f"belatwist {__version__}\n"


def test_every_command_is_documented() -> None:
    """``docs/cli.md`` has a section for each command, and names each of its options."""
    text = (CHECKOUT / "docs" / "cli.md").read_text()
    sections = dict(part.split("\n", 1) for part in text.split("\n## bela ")[1:])
    assert sorted(sections) == COMMANDS
    for name, section in sections.items():
        for parameter in command.commands[name].params:
            if parameter.param_type_name == "option":
                assert parameter.opts[0] in section, (name, parameter.opts)


LOADED = """
import atexit, sys
from belatwist.cli import main
atexit.register(lambda: print({'.'.join(n.split('.')[:2]) for n in sys.modules if n.startswith(
    ('twisted', 'treq'))} - {'twisted', 'twisted.logger', 'twisted.python', 'twisted._version'}))
main()
"""


@pytest.mark.process
@pytest.mark.parametrize("name", ["check", "export", "once", "status", "--help"])
def test_no_reactor_is_loaded(name: str, tmp_path: Path) -> None:
    """Importing the reactor takes longer than these commands need for their work.

    ``bela once`` loads it only for sources that run on it.

    A command that reads a configuration loads Twisted's log, because sources declare events.
    """
    config = write_config(tmp_path, health={"enabled": True})
    make(tmp_path / "metrics.db", ticks(LOAD, 1000, 2))
    arguments = {
        "check": [str(config)],
        "export": ["--config", str(config), "--all"],
        "once": ["--config", str(config)],
        "status": ["--url", "http://127.0.0.1:1/"],
    }
    done = subprocess.run(
        [sys.executable, "-c", LOADED, name, *arguments.get(name, [])],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.endswith("set()\n"), done.stderr


@pytest.mark.process
def test_no_reactor_is_loaded_by_tail() -> None:
    """``bela tail`` does not load the reactor either."""
    code = "import belatwist.cli.tail, sys; print('twisted.internet' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


@pytest.mark.process
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    """Each script is for its shell and this command."""
    done = bela("completion", shell)
    assert done.exit_code == 0
    assert f"_BELA_COMPLETE={shell}_complete" in done.stdout


@pytest.mark.process
@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_accepts_the_script(tmp_path: Path) -> None:
    """Bash runs the script, which gets the completions from the command."""
    (tmp_path / "bela").write_text(f'#!/bin/sh\nexec {sys.executable} -m belatwist.cli "$@"\n')
    (tmp_path / "bela").chmod(0o755)
    script = bela("completion", "bash").stdout
    ask = 'COMP_WORDS=(bela st); COMP_CWORD=1; _bela_completion bela st; echo "${COMPREPLY[@]}"'
    done = subprocess.run(
        ["bash", "--norc", "-c", f"PATH={tmp_path}:$PATH\n{script}\n{ask}"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "status\n"
