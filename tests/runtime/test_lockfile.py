"""The single-process lock; that it holds between processes is shown by the service's tests."""

import errno
import os
from pathlib import Path

import pytest

from belatwist.errors import StartError
from belatwist.runtime.lockfile import ProcessLock


def test_holds_its_owners_process_id(tmp_path: Path) -> None:
    """The file has the process id, for its owner alone."""
    lock = ProcessLock(tmp_path / "db.lock")
    lock.acquire()
    assert lock.path.read_text() == f"{os.getpid()}\n"
    assert lock.path.stat().st_mode & 0o777 == 0o600
    lock.release()


def test_second_is_refused_until_released(tmp_path: Path) -> None:
    """The refusal is one line with the file and the owner; afterwards the lock is free."""
    first, second = ProcessLock(tmp_path / "db.lock"), ProcessLock(tmp_path / "db.lock")
    first.acquire()
    with pytest.raises(StartError, match=rf"db\.lock: .*\(process {os.getpid()}\)$"):
        second.acquire()
    first.release()
    second.acquire()
    second.release()
    second.release()


def test_a_stale_file_is_no_lock(tmp_path: Path) -> None:
    """A longer process id that a crashed process left behind is replaced."""
    path = tmp_path / "db.lock"
    path.write_text("12345678901234567890 and more\n")
    lock = ProcessLock(path)
    lock.acquire()
    assert path.read_text() == f"{os.getpid()}\n"
    lock.release()


def test_a_full_disk_has_room_for_a_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock holds also when the process id cannot be written."""

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.pwrite", full)
    lock = ProcessLock(tmp_path / "db.lock")
    lock.acquire()
    assert lock.held()
    with pytest.raises(StartError, match=r"\(process unknown\)$"):
        ProcessLock(lock.path).acquire()
    lock.release()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    """The refusal names the file and the reason."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match=r"file/db\.lock: Not a directory$"):
        ProcessLock(tmp_path / "file" / "db.lock").acquire()


def test_a_deleted_file_locks_nobody_out(tmp_path: Path) -> None:
    """The owner notices: a second instance would make, and lock, a file of its own."""
    lock = ProcessLock(tmp_path / "db.lock")
    assert not lock.held()
    lock.acquire()
    assert lock.held()
    lock.path.unlink()
    assert not lock.held()
    lock.path.write_text("")
    assert not lock.held()
    lock.release()
    assert not lock.held()
