"""The paths of VictoriaMetrics that take something else than JSON lines, and the right one instead.

The server answers 204 on many of them and keeps nothing, so that samples would be lost in silence.
"""

import re
from urllib.parse import unquote, urlsplit

_IMPORT = "/api/v1/import"

_OTHER = re.compile(
    r"(?P<prefix>.*?)/(?:"
    r"api/v1/import/(?:prometheus(?:/.*)?|csv|native)"
    r"|(?:api/v[12]/)?write|api/v1/push|api/put"
    r"|(?:influx|graphite|opentsdb|datadog|newrelic|opentelemetry|zabbixconnector)/.+"
    r"|api/v1/(?:query|query_range|read|series|labels|label/.+|metadata|status/.+|admin/.+)"
    r"|api/v1/export(?:/.*)?"
    r"|ping|health|-/\w+|vmui(?:/.*)?"
    r")"
)
"""Paths of a single server, behind any prefix. Words that a proxy may use for a path of its own
are missing, such as ``/metrics``: the server's answer there is not taken for an acceptance."""

_CLUSTER = re.compile(
    r"(?P<prefix>.*?)/(?P<part>insert|select)/(?P<tenant>[0-9]+(?::[0-9]+)?|multitenant)"
    r"(?P<rest>/.+)"
)


def right_url(url: str) -> str | None:
    """Return where JSON lines go instead of a URL of VictoriaMetrics that takes something else.

    :param url: a valid one, without a user.
    :return: the URL without its query; ``None`` where its path is right, or unknown.
    """
    parts = urlsplit(url)
    # The server reads the path in the same way, except for a slash at its end.
    path = "/" + "/".join(filter(None, unquote(parts.path).split("/")))
    right = _right_path(path)
    return None if right is None else f"{parts.scheme}://{parts.netloc}{right}"


def _right_path(path: str) -> str | None:
    cluster = _CLUSTER.fullmatch(path)
    rest = path if cluster is None else cluster["rest"]
    other = None if rest.endswith(_IMPORT) else _OTHER.fullmatch(rest)
    if cluster is not None:
        # A path without more is that of Prometheus' remote write; nothing is written to select.
        if other is None and rest != "/prometheus" and cluster["part"] == "insert":
            return None
        return f"{cluster['prefix']}/insert/{cluster['tenant']}/prometheus{_IMPORT}"
    return None if other is None else f"{other['prefix']}{_IMPORT}"
