"""The configuration: YAML text to frozen, typed objects.

Each refusal is a :class:`~belatwist.errors.ConfigError` of one line. It names the file, the path of
the key, the value and the allowed values.
"""

from belatwist.config.collectors import (
    CollectorEntry,
    KnownSources,
    NoOptions,
    default_entries,
)
from belatwist.config.convert import parse
from belatwist.config.files import load, read_logins, read_token
from belatwist.config.renamed import RENAMED_KEYS, RENAMED_TEXT, RenamedKey
from belatwist.config.schema import (
    Config,
    Device,
    Health,
    Logging,
    Monitoring,
    Paths,
    Remote,
    Retention,
    Retry,
    Storage,
    Threshold,
)
from belatwist.config.section import Section
from belatwist.config.values import Seconds, duration, format_duration

DEFAULT_PATH = "/etc/belabox-metrics/config.yaml"

__all__ = [
    "DEFAULT_PATH",
    "RENAMED_KEYS",
    "RENAMED_TEXT",
    "CollectorEntry",
    "Config",
    "Device",
    "Health",
    "KnownSources",
    "Logging",
    "Monitoring",
    "NoOptions",
    "Paths",
    "Remote",
    "RenamedKey",
    "Retention",
    "Retry",
    "Seconds",
    "Section",
    "Storage",
    "Threshold",
    "default_entries",
    "duration",
    "format_duration",
    "load",
    "parse",
    "read_logins",
    "read_token",
]
