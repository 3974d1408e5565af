"""Refuses, before anything reads it, input that is too large, or that nothing here reads as its sender meant it.

NUL and lone surrogates are valid in JSON and in percent-encoding, and PostgreSQL refuses both; Starlette
replaces invalid UTF-8 silently.
"""

import re
from collections.abc import Callable
from http import HTTPStatus
from typing import TypeAlias
from urllib.parse import unquote_to_bytes

from python_multipart.multipart import parse_options_header
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core.api.errors import RefusedBody
from app.core.api.json_bodies import is_text, json_fault
from app.core.api.media_types import MULTIPART, URLENCODED, expected_instead, media_type, takes_files
from app.core.api.problems import input_problem, problem

# A quick look for NUL and non-ASCII bytes, raw or percent-encoded: a form without any need not be decoded to be valid.
_SUSPECT = re.compile(rb"%(?:00|[89a-fA-F])|[\0\x80-\xff]")
_TOO_LARGE = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
_TOO_LONG = HTTPStatus.REQUEST_URI_TOO_LONG
_CONTENT_TYPE = ["header", "content-type"]

Fault: TypeAlias = dict[str, object]
Check: TypeAlias = Callable[[bytes], Fault | None]

MAX_QUERY_SIZE = 64 * 1024
_LONG_QUERY = f"A query may have {MAX_QUERY_SIZE} bytes at most."


class InputGuard:
    """Limits queries, and bodies to `max_body_size` bytes, announced or not; refuses text that cannot be stored."""

    def __init__(self, app: ASGIApp, max_body_size: int) -> None:
        self.app = app
        self.max_body_size = max_body_size
        self.refusal = f"A body may have {max_body_size} bytes at most."

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if len(scope["query_string"]) > MAX_QUERY_SIZE:
            await problem(scope, _TOO_LONG, "uri_too_long", _LONG_QUERY)(scope, receive, send)
            return
        if place := _unfit_address(scope):
            await input_problem(scope, [_fault(place)])(scope, receive, send)
            return
        length, content_type = _body_headers(scope)
        if length > self.max_body_size:
            await problem(scope, _TOO_LARGE, "content_too_large", self.refusal)(scope, receive, send)
            return
        if _is_foreign_multipart(content_type):
            await input_problem(scope, [_fault(_CONTENT_TYPE)])(scope, receive, send)
            return
        await self.app(scope, _Body(scope, receive, self, content_type), send)


class _Body:
    """Reads the body and raises where it must be refused."""

    def __init__(self, scope: Scope, receive: Receive, guard: InputGuard, content_type: bytes) -> None:
        self._scope = scope
        self._receive = receive
        self._guard = guard
        self._size = 0
        self._chunks: list[bytes] = []
        self._content_type = content_type
        self._check: Check | None = None

    async def __call__(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request" and (chunk := message.get("body", b"")):
            self._begin()
            self._take(chunk)
        if message["type"] == "http.request" and not message.get("more_body", False):
            self._end()
        return message

    def _begin(self) -> None:
        """With the first bytes: by then the request has its route."""
        if self._size:
            return
        kind = media_type(self._content_type)
        if expected := expected_instead(self._scope, kind):
            raise RefusedBody([{"loc": _CONTENT_TYPE, "msg": f"The body must be {expected}", "type": "content_type"}])
        self._check = _check_of(kind, self._scope)

    def _take(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if self._size > self._guard.max_body_size:
            raise HTTPException(_TOO_LARGE, self._guard.refusal)
        if self._check:
            self._chunks.append(chunk)

    def _end(self) -> None:
        body = b"".join(self._chunks)
        self._chunks.clear()
        if self._check and (fault := self._check(body)):
            raise RefusedBody([fault])


def _check_of(kind: str, scope: Scope) -> Check | None:
    """How a body of this type is checked once it is complete; None where it may hold anything."""
    if "json" in kind:
        return _check_json
    if kind == URLENCODED:
        return _check_form
    return _check_text if kind == MULTIPART and not takes_files(scope) else None


def _check_json(body: bytes) -> Fault | None:
    fault = json_fault(body)
    return {"loc": ["body"], "type": fault[0], "msg": fault[1]} if fault else None


def _check_form(body: bytes) -> Fault | None:
    name = unstorable_field(body)
    return None if name is None else _fault(["body", name])


def _check_text(body: bytes) -> Fault | None:
    return None if is_text(body) else _fault(["body"])


def unstorable_field(encoded: bytes) -> str | None:
    """The name of the first field of an encoded query or form that is not valid UTF-8 without NUL."""
    if not _SUSPECT.search(encoded):
        return None
    for field in encoded.split(b"&"):
        if not is_text(unquote_to_bytes(field)):
            return unquote_to_bytes(field.partition(b"=")[0]).decode(errors="replace")
    return None


def _unfit_address(scope: Scope) -> list[str] | None:
    raw_path = scope.get("raw_path") or b""  # in the decoded one, what is no UTF-8 has been replaced
    if "\0" in scope["path"] or (_SUSPECT.search(raw_path) and not is_text(unquote_to_bytes(raw_path))):
        return ["path"]
    name = unstorable_field(scope["query_string"])
    return None if name is None else ["query", name]


def _body_headers(scope: Scope) -> tuple[int, bytes]:
    length, content_types = 0, []
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            length = int(value)
        elif name == b"content-type":
            content_types.append(value.lower())
    return length, content_types[0] if content_types else b""  # of several, Starlette reads the first too


def _is_foreign_multipart(content_type: bytes) -> bool:
    """Whether the fields would be decoded by another codec than UTF-8: Starlette takes any that Python has."""
    if b"multipart/" not in content_type:
        return False
    _, options = parse_options_header(content_type)
    return options.get(b"charset", b"utf-8") not in (b"utf-8", b"utf8")


def _fault(loc: list[str]) -> Fault:
    return {"loc": loc, "msg": "Text must be UTF-8 without NUL characters", "type": "string_unicode"}
