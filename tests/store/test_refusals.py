"""Files and folders that cannot serve the store."""

import os
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from belatwist.errors import StartError
from belatwist.store.sql import schema
from tests.fakes import inline_store
from tests.store.databases import make_foreign, make_version, reading
from tests.store.stores import InFolder, sessions, threaded


class RefusalTests(InFolder):
    """What cannot serve is refused with one line that names it, and left as it is."""

    def refused(self, path: Path) -> str:
        """Try to open a store, and return why that failed, without the path that it must name."""
        store = inline_store(path, busy_timeout_ms=1)
        failure = self.failureResultOf(Deferred.fromCoroutine(store.open("s1", 1000)), StartError)
        self.close(store)
        text = str(failure.value)
        self.assertNotIn("\n", text)
        before, named, reason = text.partition(f"{path}: ")
        self.assertEqual((before, named), ("database ", f"{path}: "))
        return reason

    def refused_untouched(self) -> str:
        """As :meth:`refused`, for a file that must stay as it is, to the byte."""
        content = self.path.read_bytes()
        reason = self.refused(self.path)
        self.assertEqual(self.path.read_bytes(), content)
        self.assertEqual([p.name for p in self.folder.iterdir()], ["metrics.db"])
        return reason

    def test_the_folder_cannot_be_made(self) -> None:
        """A file stands where a folder should be."""
        (self.folder / "file").write_text("")
        self.assertIn("Not a directory", self.refused(self.folder / "file" / "a" / "metrics.db"))
        self.assertIn("File exists", self.refused(self.folder / "file" / "metrics.db"))

    def test_the_path_is_a_folder(self) -> None:
        """A folder stands where the database should be."""
        self.path.mkdir()
        self.assertEqual(self.refused(self.path), "unable to open database file")

    def test_the_folder_is_not_writable(self) -> None:
        """No database can be made in a folder without the permission to write."""
        if os.geteuid() == 0:
            self.skipTest("root may write everywhere")
        self.folder.chmod(0o500)
        self.addCleanup(self.folder.chmod, 0o700)
        self.assertEqual(self.refused(self.path), "unable to open database file")

    def test_a_newer_version(self) -> None:
        """What a newer program wrote is not for this one to change."""
        make_version(self.path, schema.VERSION + 1)
        self.assertTrue(
            self.refused_untouched().startswith("has schema version 4, from a newer program;")
        )

    def test_a_database_of_another_program(self) -> None:
        """Nothing is written into somebody else's database, not even a pragma."""
        make_foreign(self.path)
        self.assertTrue(self.refused_untouched().startswith("is a database of another program"))

    def test_a_locked_database(self) -> None:
        """A database that another program does not let go of."""
        self.close(self.opened(self.path))
        with reading(self.path) as blocker:
            blocker.execute("BEGIN IMMEDIATE")
            self.assertEqual(self.refused(self.path), "database is locked")

    def test_a_refused_store_can_be_tried_again(self) -> None:
        """Once the obstacle is gone, the same store opens."""
        self.path.mkdir()
        store = inline_store(self.path)
        self.failureResultOf(Deferred.fromCoroutine(store.open("s1", 1000)), StartError)
        self.path.rmdir()
        self.successResultOf(Deferred.fromCoroutine(store.open("s1", 1000)))
        self.close(store)
        self.assertEqual(sessions(self.path), {"s1": ("completed", 2000)})


@pytest.mark.parametrize("make", [make_foreign, Path.mkdir])
@pytest_twisted.inlineCallbacks
def test_a_refusal_in_a_thread(
    tmp_path: Path, make: Callable[[Path], object]
) -> "Generator[Deferred[Any], Any, None]":
    """A file that cannot serve is refused from the thread as well, and closing works after it."""
    path = tmp_path / "metrics.db"
    make(path)
    store = threaded(path)
    with pytest.raises(StartError, match=r"^database /[^\n]*/metrics.db: [^\n]+$"):
        yield Deferred.fromCoroutine(store.open("s1", 1000))
    yield Deferred.fromCoroutine(store.close(2000))
