"""Sentences of the documentation are short enough to be read once."""

from pathlib import Path

import pytest

from tests.docs.prose import CHECKOUT, MAX_WORDS, docstrings, length, pages, sentences


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_no_sentence_is_longer_than_thirty_words(page: Path) -> None:
    """A longer sentence holds more than one thought."""
    long = [text for text in sentences(page.read_text()) if length(text) > MAX_WORDS]
    assert long == []


@pytest.mark.parametrize("folder", ["belatwist", "benchmarks", "tests"])
def test_no_docstring_has_a_longer_one(folder: str) -> None:
    """The rule holds for the texts in the code."""
    long = [
        f"{module.relative_to(CHECKOUT)}:{line}: {sentence}"
        for module in sorted((CHECKOUT / folder).rglob("*.py"))
        for line, text in docstrings(module)
        for sentence in sentences(text)
        if length(sentence) > MAX_WORDS
    ]
    assert long == []


@pytest.mark.parametrize(
    ("markdown", "expected"),
    [
        ("One. Two!  Three?\n", ["One.", "Two!", "Three?"]),
        ("A sentence\nover two lines.\n\nA second", ["A sentence over two lines.", "A second"]),
        (
            "It takes 1.5 GB, e.g. of tmpfs. Then it ends.",
            ["It takes 1.5 GB, e.g. of tmpfs.", "Then it ends."],
        ),
        ("# A heading\n\n| a | table. |\n\nText.\n", ["Text."]),
        ("```sh\nsome code. More.\n```\nText.\n", ["Text."]),
        (
            "- an item\n- another, of\n  two lines\n1. last\n",
            ["an item", "another, of two lines", "last"],
        ),
        (
            "Call `a.b. c` for [the page](x.md). vmagent goes.",
            ["Call Code for the page.", "vmagent goes."],
        ),
        ("**Bold.** Plain (in brackets.) Last.", ["Bold.", "Plain (in brackets.)", "Last."]),
        ("<!-- a comment. -->\n![a picture](x.png)\n", []),
    ],
)
def test_sentences_are_found(markdown: str, expected: list[str]) -> None:
    """Running text is divided where a reader would pause, and nothing else is."""
    assert list(sentences(markdown)) == expected


def test_words_are_counted() -> None:
    """Punctuation that stands alone is no word; code is one."""
    assert length("A - b / 2,500 (c) …") == 4
    assert [length(one) for one in sentences("Run `twistd -n bela` now.")] == [3]
