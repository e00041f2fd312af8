"""``/sys/class/thermal``: the sensors (Documentation/driver-api/thermal/sysfs-api.rst)."""

import re

from belatwist.errors import ParseError
from belatwist.procfs import text

INVALID = -274_000
"""Millidegrees Celsius; below absolute zero, the kernel's mark for no reading
(``THERMAL_TEMP_INVALID``, include/linux/thermal.h)."""

_TEMPERATURE = re.compile(rb"(-?[0-9]{1,10})\n")
_TYPE = re.compile(rb"([^\n\0]{1,64})\n")
_INT_MAX = 2**31 - 1


def parse_temperature(content: bytes, source: str) -> int:
    """Parse a zone's ``temp``.

    :param source: the file's path, for the error.
    :return: millidegrees Celsius, implausible ones included: the kernel's word is passed on.
    :raises ParseError: when it is not one integer of the kernel's ``int``, or means no reading.
    """
    match = _TEMPERATURE.fullmatch(content)
    if match is None:
        raise ParseError(source, f"'{text.quote(content)}' is not a temperature")
    value = int(match[1])
    if not INVALID < value <= _INT_MAX:
        raise ParseError(source, f"{value} is no reading")
    return value


def parse_type(content: bytes, source: str) -> str:
    """Parse a zone's ``type``, such as ``soc-thermal`` or ``INT3400 Thermal``.

    :param source: the file's path, for the error.
    :raises ParseError: when it is not one line of text.
    """
    match = _TYPE.fullmatch(content)
    label = text.name(match[1]).strip() if match else ""
    if not label:
        raise ParseError(source, f"'{text.quote(content)}' is not a type")
    return label
