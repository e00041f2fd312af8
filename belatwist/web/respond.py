"""Answers of a site: their headers, and errors as JSON."""

from typing import cast

import msgspec
from twisted.python.failure import Failure
from twisted.web import http
from twisted.web.iweb import IRequest
from werkzeug.exceptions import HTTPException, MethodNotAllowed

JSON = b"application/json"

ALWAYS = {b"Cache-Control": [b"no-store"], b"X-Content-Type-Options": [b"nosniff"]}
"""Headers of every answer: no cache may keep it, and no browser may guess another type."""


def respond(request: IRequest, status: int, body: bytes, content_type: bytes = JSON) -> bytes:
    """Set the status and the headers of an answer.

    :return: the body, for a route to return.
    """
    request.setResponseCode(status)
    request.setHeader(b"Content-Type", content_type)
    request.setHeader(b"Content-Length", b"%d" % len(body))
    return body


def error_body(reason: str, **more: int) -> bytes:
    """Encode an error as JSON.

    :param reason: the member ``error``.
    :param more: further members.
    """
    return msgspec.json.encode({"error": reason, **more})


def no_route(request: IRequest, failure: Failure) -> bytes:
    """Answer that an address does not exist (404), or accepts other methods (405).

    :param failure: the ``HTTPException`` that Klein's routes raised.
    """
    error = cast("HTTPException", failure.value)
    if isinstance(error, MethodNotAllowed):
        allowed = ", ".join(sorted(error.valid_methods or ()))
        request.setHeader(b"Allow", allowed.encode())
        return respond(request, http.NOT_ALLOWED, error_body(f"only {allowed} here"))
    return respond(request, http.NOT_FOUND, error_body("no such address"))
