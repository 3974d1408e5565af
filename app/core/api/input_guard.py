"""Refuses requests that are too large, ambiguous or hold text that cannot be stored, before anything reads them.

NUL and lone surrogates are valid in JSON and in percent-encoding, and PostgreSQL refuses both; Starlette
replaces invalid UTF-8 silently.
"""

import re
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from fastapi.routing import iter_route_contexts
from python_multipart.multipart import parse_options_header
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app.core.api.bodies import (
    CONTENT_TYPE,
    MAX_FORM_SIZE,
    SUSPECT,
    CheckedBody,
    Fault,
    media_type,
    size_limit,
    text_fault,
    too_large,
    unstorable_field,
)
from app.core.api.json_bodies import is_text
from app.core.api.problems import input_problem, problem

MAX_PATH_SIZE = 4096
"""Below the 4,300 digits that int() takes: `{id:int}` in a route calls it before anything can refuse the number."""

MAX_QUERY_SIZE = 64 * 1024
MAX_QUERY_FIELDS = 1000
MAX_CONTENT_TYPE_SIZE = 1000
_LONG_ADDRESS = f"A path may have {MAX_PATH_SIZE} characters at most, a query {MAX_QUERY_SIZE} bytes."

_HOST = re.compile(rb"[\w.~%!$&'()*+,;=:\[\]-]*", re.ASCII)
_NO_HOST = "A request must name its host in exactly one Host field."
_TWICE = "A request may have one Authorization field at most."


class Head(NamedTuple):
    """The header fields that are checked."""

    hosts: list[bytes]
    authorizations: int
    content_length: int
    content_type: bytes


class InputGuard:
    """Limits queries, and bodies to `max_body_size` bytes unless their route declares another limit.

    Refuses what RFC 9112 section 3.2 calls a bad request, and text that cannot be stored.
    """

    def __init__(self, app: ASGIApp, max_body_size: int) -> None:
        self.app = app
        self.max_body_size = max_body_size
        self._lowest: int | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        head = _read_head(scope)
        if refusal := _bad_head(scope, head) or self._bad_input(scope, head):
            await refusal(scope, receive, send)
        elif scope["type"] == "http":
            await self.app(scope, CheckedBody(scope, receive, self.max_body_size, head.content_type), send)
        else:
            await self.app(scope, receive, send)

    def _bad_input(self, scope: Scope, head: Head) -> Response | None:
        if len(scope["path"]) > MAX_PATH_SIZE or len(scope["query_string"]) > MAX_QUERY_SIZE:
            return problem(scope, HTTPStatus.REQUEST_URI_TOO_LONG, "uri_too_long", _LONG_ADDRESS)
        if place := _unfit_address(scope):
            return input_problem(scope, [text_fault(scope, place)])
        if head.content_length > self._lowest_limit(scope):
            limit = size_limit(scope, self.max_body_size, media_type(head.content_type))
            if head.content_length > limit:
                return problem(scope, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "content_too_large", too_large(limit))
        if _is_foreign_multipart(head.content_type):
            return input_problem(scope, [{**text_fault(scope, ["header"]), "loc": CONTENT_TYPE}])
        return None

    def _lowest_limit(self, scope: Scope) -> int:
        """Up to here no body is too large, whatever its route."""
        if self._lowest is None:
            routes = iter_route_contexts(scope["app"].routes) if "app" in scope else ()
            declared = [getattr(route, "max_body_size", None) for route in routes]
            sizes = [size for size in declared if size is not None]
            self._lowest = min(self.max_body_size, MAX_FORM_SIZE, *sizes)
        return self._lowest


def _read_head(scope: Scope) -> Head:
    hosts, authorizations, length, content_types = [], 0, 0, []
    for name, value in scope["headers"]:
        if name == b"host":
            hosts.append(value)
        elif name == b"authorization":
            authorizations += 1
        elif name == b"content-length" and value.isdigit():
            length = int(value)
        elif name == b"content-type":
            content_types.append(value.lower())
    # Of several content types, Starlette reads the first too.
    return Head(hosts, authorizations, length, content_types[0] if content_types else b"")


def _bad_head(scope: Scope, head: Head) -> Response | None:
    may_lack_host = scope.get("http_version") == "1.0"
    if (len(head.hosts) != 1 and (head.hosts or not may_lack_host)) or not all(map(_HOST.fullmatch, head.hosts)):
        return problem(scope, HTTPStatus.BAD_REQUEST, "bad_request", _NO_HOST)
    if head.authorizations > 1:
        return problem(scope, HTTPStatus.BAD_REQUEST, "bad_request", _TWICE)
    fault = _costly(scope, head)
    return input_problem(scope, [fault]) if fault else None


def _costly(scope: Scope, head: Head) -> Fault | None:
    """What takes longer to parse than its bytes: the fields of a query, and the parameters of a content type."""
    if scope["query_string"].count(b"&") >= MAX_QUERY_FIELDS:
        message = f"A query may have {MAX_QUERY_FIELDS} fields at most"
        return {"loc": ["query"], "msg": message, "type": "query_fields"}
    if len(head.content_type) > MAX_CONTENT_TYPE_SIZE:
        message = f"A content type may have {MAX_CONTENT_TYPE_SIZE} bytes at most"
        return {"loc": CONTENT_TYPE, "msg": message, "type": "content_type"}
    return None


def _unfit_address(scope: Scope) -> list[str] | None:
    raw_path = scope.get("raw_path") or b""  # in the decoded one, what is no UTF-8 has been replaced
    if "\0" in scope["path"] or (SUSPECT.search(raw_path) and not is_text(unquote_to_bytes(raw_path))):
        return ["path"]
    name = unstorable_field(scope["query_string"])
    return None if name is None else ["query", name]


def _is_foreign_multipart(content_type: bytes) -> bool:
    """Whether the fields would be decoded by another codec than UTF-8: Starlette takes any that Python has."""
    if b"multipart/" not in content_type:
        return False
    _, options = parse_options_header(content_type)
    return options.get(b"charset", b"utf-8") not in (b"utf-8", b"utf8")
