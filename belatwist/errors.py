"""The error types of the package, split by what the caller must do about them."""


class BelaError(Exception):
    """Anything that this package raises on purpose. Its text is one line, fit for an operator."""


class ConfigError(BelaError):
    """The configuration cannot be used: say so and do not start."""


class StartError(BelaError):
    """The service cannot start here (lock held, database unusable): say so and exit."""


class ParseError(BelaError):
    """A file of ``/proc`` or ``/sys`` does not read as the kernel documents it.

    :param source: what was read, as the operator would name it (``/proc/stat``).
    :param reason: what is wrong with it, quoting at most a short piece of it.
    """

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(f"{source}: {reason}")
        self.source = source
        self.reason = reason


class ReadError(BelaError):
    """A file of ``/proc`` or ``/sys`` cannot be read: missing, denied, too large, failing.

    :param reason: what is wrong, with the file's path.
    :ivar code: the system's name of the error (``EIO``); empty where the system reported none.
    """

    def __init__(self, reason: str, code: str = "") -> None:
        super().__init__(reason)
        self.code = code


class NonFiniteValueError(BelaError):
    """A sample was given NaN or an infinity, which neither the store nor the server keeps."""
