"""The entries of ``metrics``, whose options are those of the source that an entry names.

The configuration imports no collector: its caller passes the sources that a file may name.
"""

from collections.abc import Mapping
from typing import Annotated, Protocol

from msgspec import Meta

from belatwist.config.section import Section
from belatwist.config.values import Seconds


class NoOptions(Section, frozen=True, kw_only=True):
    """A collector without options of its own."""


class CollectorEntry(Section, frozen=True, kw_only=True):
    """An entry of ``metrics``. Its ``config`` has the type of the collector's options."""

    name: Annotated[
        str, Meta(description="Name of a collector, at most once; see the table of collectors.")
    ]
    interval: Annotated[
        Seconds, Meta(description="How often to collect. By default the collector's own interval.")
    ]
    enabled: Annotated[bool, Meta(description="Whether to run the collector.")] = True
    config: Annotated[Section, Meta(description="Options of the collector.")] = NoOptions()


class KnownSource(Protocol):
    """What the configuration needs to know of a source that a file may name."""

    @property
    def every(self) -> float:
        """Seconds between two collections, unless the file has others."""
        ...

    @property
    def options(self) -> type[Section]:
        """The type of its ``config``."""
        ...

    @property
    def default(self) -> bool:
        """Whether the source runs when the file has no ``metrics``."""
        ...


KnownSources = Mapping[str, KnownSource]
"""The sources that a configuration may name, by their names."""


def default_entries(known: KnownSources) -> tuple[CollectorEntry, ...]:
    """Return the entries of a file without ``metrics``."""
    return tuple(
        CollectorEntry(name=name, interval=source.every, config=source.options())
        for name, source in known.items()
        if source.default
    )
