"""The configuration file, the token and the certificates: used, or refused in one line."""

import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from belatwist.collectors.registry import SOURCES
from belatwist.config import load, read_token
from belatwist.errors import ConfigError

ID = "device: {id: x}\n"
SECRET = "hunter2hunter2"


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a short name: a refusal shortens a long one."""
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


@pytest.fixture
def folder(short: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a valid token and certificate, which is not the current one."""
    elsewhere = short / "cwd"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    folder = short / "etc"
    folder.mkdir()
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(f"{SECRET}\n")
    (folder / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\n")
    return folder


def _refusal(path: Path | str) -> str:
    with pytest.raises(ConfigError) as refusal:
        load(path, SOURCES)
    line = str(refusal.value)
    assert line.isprintable()
    return line


def _configured(folder: Path, remote: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(f"{ID}remote: {{{remote}}}\n")
    return path


def test_a_missing_file_says_what_to_do(folder: Path) -> None:
    """The refusal says how to get a file."""
    path = folder / "none.yaml"
    assert _refusal(path) == (
        f"{path}: no such file; copy configs/config.yaml there, or name another file with --config"
    )


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", ": the file is empty; it needs at least device.id"),
        (b"device:\n  id: \xff\n", ":2: not UTF-8"),
        (b"#" * (1024 * 1024 + 1), ": larger than 1048576 bytes"),
    ],
)
def test_a_file_that_is_no_configuration(folder: Path, data: bytes, what: str) -> None:
    """Empty, undecodable and oversized files are refused."""
    path = folder / "config.yaml"
    path.write_bytes(data)
    assert _refusal(path) == f"{path}{what}"


def test_what_is_no_file(folder: Path) -> None:
    """A directory, a pipe without a writer and an impossible name are refused at once."""
    pipe = folder / "pipe"
    os.mkfifo(pipe)
    assert _refusal(folder) == f"{folder}: cannot be read: Is a directory"
    assert _refusal(pipe) == f"{pipe}: not a regular file"
    assert _refusal(pipe / "x") == f"{pipe}/x: cannot be read: Not a directory"
    assert _refusal("a\nb\0") == r"a\nb\u0000: not a possible file name"
    assert _refusal("a\ud800") == r"a\ud800: not a possible file name"


def test_an_unreadable_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that the process may not read is refused with the system's reason."""

    def denied(*_: object) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    path = _configured(folder, "")
    monkeypatch.setattr(os, "open", denied)
    assert _refusal(path) == f"{path}: cannot be read: Permission denied"


def test_a_byte_order_mark_is_no_matter(folder: Path) -> None:
    """A file saved with a byte order mark loads."""
    path = folder / "config.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + ID.encode())
    assert load(path, SOURCES).device.id == "x"


def test_a_good_token_and_certificate(folder: Path) -> None:
    """Both files are accepted, also through a symbolic link, and the token is the file's line."""
    (folder / "link").symlink_to("token")
    path = _configured(folder, f"auth_token_file: {folder}/link, tls_ca_file: {folder}/ca.pem")
    config = load(str(path), SOURCES)
    assert config.remote.auth_token_file == f"{folder}/link"
    assert read_token(f"{folder}/link") == SECRET


@pytest.mark.parametrize("data", [f"{SECRET}\r\n", SECRET, "x" * 4096, "~!+/="])
def test_tokens_that_are_accepted(folder: Path, data: str) -> None:
    """One line of printable ASCII, with or without its end, up to 4096 bytes."""
    (folder / "token").write_bytes(data.encode())
    assert read_token(f"{folder}/token") == data.strip()


RULE = "the file must hold one line of printable ASCII without spaces"


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "the file is empty"),
        (b"\n", "the file is empty"),
        (b"hunter2\nhunter2\n", RULE),
        (b"hunter2\n\n", RULE),
        (b"Bearer hunter2", RULE),
        (b"hunter2\xff", RULE),
        (b"hunter2\0", RULE),
        (b"hunter2" * 700, "larger than 4096 bytes"),
    ],
)
def test_tokens_that_are_refused(folder: Path, data: bytes, what: str) -> None:
    """A file without a token is refused; the refusal never has the file's content."""
    (folder / "token").write_bytes(data)
    path = _configured(folder, f"auth_token_file: {folder}/token")
    assert _refusal(path) == f'{path}: remote.auth_token_file: "{folder}/token": {what}'


def test_a_credential_of_systemd(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In its folder the group's bits are the mask of an access list, and no access for a group."""
    token = folder / "token"
    token.chmod(0o440)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    assert read_token(str(token)) == token.read_text().strip()
    token.chmod(0o444)
    with pytest.raises(ConfigError, match="mode 0444"):
        read_token(str(token))
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder.parent))
    token.chmod(0o440)
    with pytest.raises(ConfigError, match="mode 0440"):
        read_token(str(token))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o666])
def test_a_token_that_others_may_touch(folder: Path, mode: int) -> None:
    """Any access for group or others is refused, with the mode and the remedy."""
    (folder / "token").chmod(mode)
    path = _configured(folder, f"auth_token_file: {folder}/token")
    assert _refusal(path) == (
        f'{path}: remote.auth_token_file: "{folder}/token": '
        f"mode {mode:04o}: only its owner may have access: chmod 600"
    )


def test_a_token_file_that_is_none(folder: Path) -> None:
    """A missing file, a directory and a pipe are refused."""
    os.mkfifo(folder / "pipe", 0o600)
    for name, what in [
        ("none", "no such file"),
        ("", "cannot be read: Is a directory"),
        ("pipe", "not a regular file"),
    ]:
        path = _configured(folder, f"auth_token_file: {folder / 'x' / '..' / name}")
        (folder / "x").mkdir(exist_ok=True)
        assert _refusal(path).endswith(f": {what}")


@pytest.mark.parametrize("token", [SECRET, f"abc/{SECRET}+==", f"/a/{SECRET}", f"./{SECRET}"])
def test_a_token_in_the_wrong_place_is_not_shown(folder: Path, token: str) -> None:
    """A token in place of its file's path is not shown in the refusal."""
    path = _configured(folder, f"auth_token_file: '{token}'")
    assert _refusal(path) == f"{path}: remote.auth_token_file: <not shown>: no such file"


def test_certificates_that_are_refused(folder: Path) -> None:
    """A missing file and a file without a certificate are refused before the first upload."""
    path = _configured(folder, f"tls_ca_file: {folder}/none.pem")
    assert _refusal(path) == f'{path}: remote.tls_ca_file: "{folder}/none.pem": no such file'
    (folder / "ca.pem").write_text("hello")
    path = _configured(folder, f"tls_ca_file: {folder}/ca.pem")
    assert _refusal(path) == (
        f'{path}: remote.tls_ca_file: "{folder}/ca.pem": the file contains no PEM certificate'
    )
