"""The reactor, for the few commands whose work may need it; they load it when it does."""

import time
from typing import Any


def load_reactor() -> Any:
    """Return the reactor, whose time is the monotonic clock."""
    from twisted.internet import reactor

    loaded: Any = reactor
    loaded.seconds = time.monotonic
    return loaded
