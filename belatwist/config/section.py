"""What every section of the configuration is."""

import msgspec


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A mapping of the configuration file.

    The type of a field says what is allowed (see :mod:`belatwist.config.values`). Its description
    goes into the documentation.
    """
