"""A key that has a new name works under its old one."""

from typing import Any

import msgspec
import pytest

from belatwist.collectors.registry import SOURCES
from belatwist.config import RENAMED_KEYS, Config, RenamedKey, parse
from belatwist.config.refusals import RefusalError
from belatwist.config.renamed import rename
from belatwist.errors import ConfigError

ID = "device: {id: x}\n"

WARNING = (
    "Configuration key remote.lookout_interval in f.yaml is now named remote.reconnect_interval;"
    " the old name still works"
)


def unexpected(warning: RenamedKey) -> None:
    """Fail because of a warning."""
    pytest.fail(str(warning))


def exists(path: str) -> bool:
    """Tell whether the schema has a key of this path."""
    section: Any = Config
    for name in path.split("."):
        types = {field.name: field.type for field in msgspec.structs.fields(section)}
        if name not in types:
            return False
        section = types[name]
    return True


@pytest.mark.parametrize(("old", "new"), RENAMED_KEYS.items())
def test_the_table_fits_the_schema(old: str, new: str) -> None:
    """Each new name is a key of the schema, and each old name is none."""
    assert exists(new)
    assert not exists(old)


def test_the_old_name_sets_the_same_value() -> None:
    """A file with the old name is the same configuration, and has one warning."""
    warnings: list[RenamedKey] = []
    config = parse(ID + "remote: {lookout_interval: 7s}", "f.yaml", SOURCES, warnings.append)
    assert config == parse(ID + "remote: {reconnect_interval: 7s}", "f.yaml", SOURCES, unexpected)
    assert config.remote.reconnect_interval == 7.0
    assert [str(one) for one in warnings] == [WARNING]


@pytest.mark.parametrize(
    ("remote", "line"),
    [
        (
            "{lookout_interval: 7s, reconnect_interval: 7s}",
            "remote.lookout_interval: the file has its new name too: remove it and keep"
            " remote.reconnect_interval",
        ),
        (
            "{lookout_interval: 7}",
            "remote.lookout_interval: 7: a duration needs a unit, write 7s",
        ),
        (
            "{lookout_interval: 48h}",
            'remote.lookout_interval: "48h": a duration from 100ms to 24h, such as 30s',
        ),
        ("5", "remote: 5: a mapping with the keys url, enabled, "),
    ],
)
def test_a_refusal_uses_the_name_in_the_file(remote: str, line: str) -> None:
    """Both names at once, and a bad value under the old name, are refused without a warning."""
    with pytest.raises(ConfigError) as refusal:
        parse(f"{ID}remote: {remote}", "f.yaml", SOURCES, unexpected)
    assert str(refusal.value).startswith(f"f.yaml: {line}")


TABLE = {"a.b.old": "a.b.new", "gone.x": "kept.deep.y", "first": "last"}


@pytest.mark.parametrize(
    ("raw", "after", "written"),
    [
        ({}, {}, {}),
        ({"a": None}, {"a": None}, {}),
        ({"a": {"b": 1}}, {"a": {"b": 1}}, {}),
        ({"a": {"b": {"new": 1}}}, {"a": {"b": {"new": 1}}}, {}),
        ({"a": {"b": {"old": 1}}}, {"a": {"b": {"new": 1}}}, {"a.b.new": "a.b.old"}),
        ({"a": {"b": {"old": None}}}, {"a": {"b": {"new": None}}}, {"a.b.new": "a.b.old"}),
        ({"gone": {"x": 1}}, {"kept": {"deep": {"y": 1}}}, {"kept.deep.y": "gone.x"}),
        (
            {"gone": {"x": 1, "z": 2}, "kept": None},
            {"gone": {"z": 2}, "kept": {"deep": {"y": 1}}},
            {"kept.deep.y": "gone.x"},
        ),
        ({"gone": {"x": 1}, "kept": 5}, {"kept": 5}, {}),
        ({"first": {"x": 1}}, {"last": {"x": 1}}, {"last": "first"}),
    ],
)
def test_a_key_moves(raw: dict[str, Any], after: dict[str, Any], written: dict[str, str]) -> None:
    """A key moves within its section, to another section, or with all that is in it."""
    assert rename(raw, TABLE) == written
    assert raw == after


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("last", "first: 1: no"),
        ("last.x", "first.x: 1: no"),
        ("last[2]", "first[2]: 1: no"),
        ("lasting", "lasting: 1: no"),
    ],
)
def test_a_refusal_within_a_renamed_section(path: str, text: str) -> None:
    """A refusal below a renamed section has the file's name of the section."""
    refusal = RefusalError(f"{path}: 1: no", path)
    assert refusal.as_written({"last": "first"}) == text
