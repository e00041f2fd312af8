"""A database to test the statements on, without a store around them."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.store.databases import fresh


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    """A database in memory that has the schema and a running session, number 1."""
    with closing(fresh()) as connection:
        yield connection
