"""How a source is doing; apart from the contract, so that health needs nothing else of it."""

from enum import StrEnum


class State(StrEnum):
    """How a source is doing."""

    OK = "ok"
    ABSENT = "absent"
    """This machine has no such thing. There are no samples, and nothing is wrong."""
    HIDDEN = "hidden"
    """The thing may be there, and the sandbox or permissions keep it from the agent."""
    FAILING = "failing"
