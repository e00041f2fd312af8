"""The error types of the package, one for each way in which callers handle them."""


class BelaError(Exception):
    """The base of all errors that this package raises. Its text is one line for an operator."""


class ConfigError(BelaError):
    """The configuration cannot be used: report it, and do not start."""


class StartError(BelaError):
    """The service cannot start here (lock held, database unusable): report it, and exit."""


class ParseError(BelaError):
    """A file of ``/proc`` or ``/sys`` does not have the format that the kernel documents.

    :param source: the file, as an operator would name it (``/proc/stat``).
    :param reason: the problem, quoting at most a short piece of the file.
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


class HttpError(BelaError):
    """A server has not given the answer that was asked for.

    :param reason: what is wrong, with the server's name, in one line without secrets.
    :ivar code: one word from a short list (``refused``, ``timeout``, ``HTTP 404``).
    :ivar status: the answer's HTTP status; ``None`` when there is no answer.
    """

    def __init__(self, reason: str, code: str, status: int | None = None) -> None:
        super().__init__(reason)
        self.code = code
        self.status = status


class NonFiniteValueError(BelaError):
    """The value of a sample is NaN or infinite. Neither the store nor the server keeps those."""


class AbsentError(BelaError):
    """The machine has no such thing. The text says what is not there."""


class HiddenError(BelaError):
    """The thing may be there, and the sandbox or permissions keep it from the agent.

    :param what: what cannot be seen, and what hides it (``ProtectProc=``, a group, a mode).
    :param cure: what the operator does about it.
    """

    def __init__(self, what: str, cure: str) -> None:
        super().__init__(what)
        self.cure = cure
