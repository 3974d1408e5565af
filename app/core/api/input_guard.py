"""Refuses, before anything reads it, input that is too large or that no text column can hold.

NUL and lone surrogates are valid in JSON and in percent-encoding, and PostgreSQL refuses both; Starlette
replaces invalid UTF-8 silently.
"""

import re
from http import HTTPStatus
from urllib.parse import unquote_to_bytes

from python_multipart.multipart import parse_options_header
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core.api.errors import RefusedBody
from app.core.api.problems import input_problem, problem

# Escapes in their order, so that an escaped backslash is no beginning of one; a pair of surrogates is fine.
_JSON_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<unfit>u0000|u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
# What is, or is percent-encoded, NUL or no ASCII: without any of it, a form need not be decoded to be known as text.
_SUSPECT = re.compile(rb"%(?:00|[89a-fA-F])|[\0\x80-\xff]")
_TOO_LARGE = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
_TOO_LONG = HTTPStatus.REQUEST_URI_TOO_LONG
_FORM = b"application/x-www-form-urlencoded"


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
            await input_problem(scope, [_fault(["header", "content-type"])])(scope, receive, send)
            return
        await self.app(scope, _Body(receive, self, content_type), send)


class _Body:
    """Reads the body and raises where it must be refused."""

    def __init__(self, receive: Receive, guard: InputGuard, content_type: bytes) -> None:
        self._receive = receive
        self._guard = guard
        self._size = 0
        self._chunks: list[bytes] = []
        self._is_form = content_type.startswith(_FORM)
        self._is_json = b"json" in content_type

    async def __call__(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._take(message.get("body", b""), more=message.get("more_body", False))
        return message

    def _take(self, chunk: bytes, *, more: bool) -> None:
        self._size += len(chunk)
        if self._size > self._guard.max_body_size:
            raise HTTPException(_TOO_LARGE, self._guard.refusal)
        if not self._is_form and not self._is_json:
            return
        self._chunks.append(chunk)
        if more:
            return
        body = b"".join(self._chunks)
        self._chunks.clear()
        if self._is_json and not is_storable_json(body):
            raise RefusedBody([_fault(["body"])])
        if self._is_form and (name := unstorable_field(body)) is not None:
            raise RefusedBody([_fault(["body", name])])


def is_storable_json(body: bytes) -> bool:
    """Whether every string in the text is valid UTF-8 without NUL."""
    if not _is_text(body):
        return False
    return b"\\u" not in body or not any(escape["unfit"] for escape in _JSON_ESCAPE.finditer(body))


def unstorable_field(encoded: bytes) -> str | None:
    """The name of the first field of an encoded query or form that is not valid UTF-8 without NUL."""
    if not _SUSPECT.search(encoded):
        return None
    for field in encoded.split(b"&"):
        if not _is_text(unquote_to_bytes(field)):
            return unquote_to_bytes(field.partition(b"=")[0]).decode(errors="replace")
    return None


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return b"\0" not in data


def _unfit_address(scope: Scope) -> list[str] | None:
    if "\0" in scope["path"]:
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


def _fault(loc: list[str]) -> dict[str, object]:
    return {"loc": loc, "msg": "Text must be UTF-8 without NUL characters", "type": "string_unicode"}
