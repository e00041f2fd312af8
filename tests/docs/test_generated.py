"""The generated parts of the documentation are current, and the events are well-formed."""

import re

import pytest
from twisted.logger import LogLevel

from belatwist.log.events import Event
from tests.docs import events
from tests.docs.generated import PAGES, between
from tests.docs.prose import CHECKOUT, MAX_WORDS, length, pages

EVENTS = events.declared()


@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_up_to_date(name: str) -> None:
    """``make docs`` would change nothing."""
    page = (CHECKOUT / name).read_text("utf-8")
    assert PAGES[name](page) == page, f"{name} is out of date: run make docs, and commit it"


def test_marks_are_needed() -> None:
    """A page that has lost a mark is refused."""
    with pytest.raises(ValueError, match="marks"):
        between("no marks", "text")


def test_each_event_is_declared_once_by_a_module() -> None:
    """No two events share a name, and each event is a constant of a module."""
    assert [event.name for event in EVENTS] == events.constructed()
    assert len({event.name for event in EVENTS}) == len(EVENTS)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.name)
def test_an_event_is_well_formed(event: Event) -> None:
    """Name, text and cure have their form, and no field hides one that repetition adds."""
    assert events.NAME.fullmatch(event.name)
    assert event.text[0].isupper() or event.text[0] in "{0123456789"
    assert not event.text.endswith(".")
    assert length(event.text) <= MAX_WORDS
    assert not event.cure or event.cure.endswith(".")
    assert event.cure or event.level <= LogLevel.info
    assert not set(event.fields) & {"event", "failures", "flips"}
    assert not set(event.fields) & {"log", "level", "suffix", "failure"}  # of Event.emit


def test_pages_name_declared_events() -> None:
    """Each event that an example of a page selects is declared."""
    names = {event.name for event in EVENTS}
    found = {
        name for page in pages() for name in re.findall(r'\.event == "([^"]+)"', page.read_text())
    }
    assert found
    assert found <= names


def test_the_table() -> None:
    """Each part of the program has a table, and no cell ends early."""
    some = [
        Event("a.one", LogLevel.info, "One", cure="Wait."),
        Event("a.two", LogLevel.warn, "{x} | {y:.1f}", fields=("z",)),
        Event("b.three", LogLevel.error, "Three"),
    ]
    assert events.render(some).splitlines() == [
        "### a",
        "",
        "| event | level | text | fields | what to do |",
        "| --- | --- | --- | --- | --- |",
        "| `a.one` | info | One |  | Wait. |",
        r"| `a.two` | warn | {x} \| {y} | `x`, `y`, `z` |  |",
        "",
        "### b",
        "",
        "| event | level | text | fields | what to do |",
        "| --- | --- | --- | --- | --- |",
        "| `b.three` | error | Three |  |  |",
    ]
