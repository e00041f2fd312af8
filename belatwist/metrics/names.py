"""PromQL-safe names of metrics and labels.

Metric names are ``[a-zA-Z_:][a-zA-Z0-9_:]*`` and label names ``[a-zA-Z_][a-zA-Z0-9_]*``
(Prometheus documentation, "Metric names and labels"). The names in the store stay as they are.
"""

import re
from collections.abc import Iterable

_NOT_METRIC = re.compile(r"[^a-zA-Z0-9_:]")
_NOT_LABEL = re.compile(r"[^a-zA-Z0-9_]")

OWN_LABELS = ("__name__", "device_id")
"""Labels that the uploader itself sets; a tag of that name must not replace them."""


def metric_name(stored: str) -> str:
    """Make a stored name PromQL-safe (``cpu.temperature`` → ``cpu_temperature_celsius``).

    :param stored: the dotted name.
    :return: the name with an underscore for every other character and before a leading digit. The
        temperature families get their unit, which the stored names lack.
    """
    name = _NOT_METRIC.sub("_", stored)
    if name[:1].isdigit():
        name = f"_{name}"
    if name.startswith(("cpu_temperature", "thermal_")) and not name.endswith("_celsius"):
        name += "_celsius"
    return name


def labels(device_id: str, tags: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Turn a device and its tags into labels, in the order given, no two of the same name.

    :param tags: ``(key, value)`` pairs. A key that equals a label of the uploader, or an earlier
        label once made safe, becomes ``exported_<key>``. Otherwise the server would keep only the
        last of two equal labels, and two series would become one.
    """
    result = {"device_id": device_id}
    for key, value in tags:
        label = _NOT_LABEL.sub("_", key)
        if label[:1].isdigit() or not label:
            label = f"_{label}"
        while label in result or label in OWN_LABELS:
            label = f"exported_{label}"
        result[label] = value
    return result
