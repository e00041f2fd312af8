"""The page as the browser first receives it, with the verdict in words before any script runs."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from types import MappingProxyType

import msgspec

STATIC = Path(__file__).with_name("static")
"""The folder of the static files and of the page's template."""

WORDS: Mapping[str, str] = MappingProxyType(
    {"ok": "All is well", "degraded": "Needs attention", "error": "Something is broken"}
)
"""The verdict in words, by the status."""


def render(
    *,
    device_id: str,
    version: str,
    health_path: str,
    status: str,
    reasons: Sequence[str],
    now: bytes,
) -> bytes:
    """Fill in the page.

    Its links are relative, so that a proxy may serve it below a path of its own.

    :param status: ``ok``, ``degraded`` or ``error``.
    :param now: the answer of ``/api/v1/now`` as JSON, which saves the page its first request.
    """
    template = Template((STATIC / "index.html").read_text("utf-8"))
    # "<" could end the element; in JSON it occurs only inside texts.
    data = b'{"words":%b,"now":%b}' % (msgspec.json.encode(dict(WORDS)), now)
    return template.substitute(
        device=html.escape(device_id),
        version=html.escape(version),
        health=html.escape(health_path.removeprefix("/")),
        status=status,
        word=html.escape(WORDS[status]),
        reasons="".join(f"<li>{html.escape(reason)}</li>" for reason in reasons),
        data=data.replace(b"<", b"\\u003c").decode(),
    ).encode()
