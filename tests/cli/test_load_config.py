"""Commands read a configuration without the files that it names."""

from pathlib import Path

import pytest

from belatwist import config
from belatwist.cli import load_config
from belatwist.collectors.registry import SOURCES
from belatwist.errors import ConfigError
from tests.process import write_config


def test_a_key_with_a_new_name(tmp_path: Path) -> None:
    """The old name is accepted, with one line that names both and the file."""
    path = write_config(tmp_path, remote={"lookout_interval": "7s"})
    lines: list[str] = []
    assert load_config.read(str(path), lines.append).remote.reconnect_interval == 7.0
    assert lines == [
        f"Configuration key remote.lookout_interval in {path} is now named"
        " remote.reconnect_interval; the old name still works"
    ]


def test_without_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing default file stands for the defaults, with a note; another must exist."""
    missing = str(tmp_path / "none.yaml")
    monkeypatch.setattr(config, "DEFAULT_PATH", missing)
    lines: list[str] = []
    found = load_config.read(None, lines.append)
    defaults = config.default_entries(SOURCES)
    assert found == config.Config(device=found.device, metrics=defaults)
    assert lines == [
        f"{missing}: no such file; using the defaults (--config FILE names another file)"
    ]
    with pytest.raises(ConfigError, match="no such file; --config FILE names another"):
        load_config.read(missing, pytest.fail)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"device: {id: \xff}\n", "not UTF-8"),
        (b"#" * (1024 * 1024 + 1), "larger than 1048576 bytes"),
        (b"[]\n", "top level: a list: a mapping with the keys"),
    ],
)
def test_a_file_that_is_refused(tmp_path: Path, data: bytes, reason: str) -> None:
    """The refusal names the file and the reason."""
    path = tmp_path / "config.yaml"
    path.write_bytes(data)
    with pytest.raises(ConfigError) as refusal:
        load_config.read(str(path), pytest.fail)
    assert str(refusal.value).startswith(f"{path}: {reason}")


def test_a_token_is_not_needed(tmp_path: Path) -> None:
    """A token that the user may not read, or that is missing, is no reason to refuse."""
    path = write_config(tmp_path, remote={"auth_token_file": str(tmp_path / "token")})
    read = load_config.read(str(path), pytest.fail)
    assert read.remote.auth_token_file == str(tmp_path / "token")
