"""Texts from anywhere, fit for one line of a log, a status or a message."""


def printable(text: str) -> str:
    """Return a text on one line, with spaces for what cannot be printed."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
