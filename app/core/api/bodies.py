"""Checks of a body while it is read: size and type by its route, and text that can be stored.

FastAPI reads the body before it calls any dependency, so limits that count addresses are counted at the first read.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, TypeAlias
from urllib.parse import unquote_to_bytes

from fastapi.params import Body, File, Form
from fastapi.requests import HTTPConnection, Request
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope

from app.core.api.errors import RefusedBody, with_known_names
from app.core.api.json_bodies import MAX_NODES, is_text, json_fault
from app.core.api.limiter import limits_by_address
from app.core.api.routes import route_of
from app.core.exceptions import InvalidInputError, RateLimitedError

JSON = "application/json"
URLENCODED = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data"

MAX_FORM_SIZE = 256 * 1024
"""Bytes of an urlencoded form whose route declares no `max_body_size`: decoding one is slow."""
MAX_FORM_FIELDS = 100
"""Fields of a form whose route declares no `form_limits`."""

CONTENT_TYPE = ["header", "content-type"]

# A quick look for NUL and non-ASCII bytes, raw or percent-encoded: a form without any need not be decoded to be valid.
SUSPECT = re.compile(rb"%(?:00|[89a-fA-F])|[\0\x80-\xff]")

Fault: TypeAlias = dict[str, object]
Check: TypeAlias = Callable[[Scope, bytes], Fault | None]


def media_type(content_type: bytes) -> str:
    """The type without its parameters, in lower case."""
    return content_type.partition(b";")[0].strip().lower().decode("latin-1")


def is_json(kind: str) -> bool:
    """Whether FastAPI reads a body of this type as JSON."""
    return kind == JSON or (kind.startswith("application/") and kind.endswith("+json"))


def size_limit(scope: Scope, default: int, kind: str) -> int:
    """The most bytes a body of this type may have: the `max_body_size` of its route, or the default."""
    route = route_of(scope)
    if route and route.max_body_size is not None:
        return route.max_body_size
    return min(default, MAX_FORM_SIZE) if kind == URLENCODED else default


def too_large(limit: int) -> str:
    """Why a body is refused."""
    return f"A body may have {limit} bytes at most."


def text_fault(scope: Scope, loc: list[str]) -> Fault:
    """A fault for text that no column can hold."""
    fault = {"loc": loc, "msg": "Text must be UTF-8 without NUL characters", "type": "string_unicode"}
    return with_known_names(scope, fault)


def unstorable_field(encoded: bytes) -> str | None:
    """The name of the first field of an encoded query or form that is not valid UTF-8 without NUL."""
    if not SUSPECT.search(encoded):
        return None
    for field in encoded.split(b"&"):
        if not is_text(unquote_to_bytes(field)):
            return unquote_to_bytes(field.partition(b"=")[0]).decode(errors="replace")
    return None


def client_left(connection: HTTPConnection) -> Callable[[], Awaitable[None]]:
    """A function that returns when the client has gone; to call once the body has been read."""

    async def wait() -> None:
        if isinstance(connection, Request):
            while (await connection.receive())["type"] != "http.disconnect":
                pass
        else:
            await asyncio.Event().wait()

    return wait


class CheckedBody:
    """The `receive` of a request that raises where the body must be refused."""

    def __init__(self, scope: Scope, receive: Receive, default_limit: int, content_type: bytes) -> None:
        self._scope = scope
        self._receive = receive
        self._limit = default_limit
        self._media_type = media_type(content_type)
        self._admitted = False
        self._size = 0
        self._chunks: list[bytes] = []
        self._check: Check | None = None
        self._fields_left: int | None = None

    async def __call__(self) -> Message:
        if not self._admitted and "endpoint" in self._scope:
            self._admitted = True
            await self._admit()
        message = await self._receive()
        if message["type"] == "http.request" and (chunk := message.get("body", b"")):
            self._take(chunk)
        if message["type"] == "http.request" and not message.get("more_body", False):
            self._end()
        return message

    async def _admit(self) -> None:
        connection = HTTPConnection(self._scope)
        try:
            for limit in limits_by_address(self._scope):
                await limit(connection)
        except RateLimitedError as exc:
            raise RefusedBody(exc) from exc

    def _take(self, chunk: bytes) -> None:
        if not self._size:
            self._begin()
        self._size += len(chunk)
        if self._size > self._limit:
            raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, too_large(self._limit))
        if self._check:
            self._chunks.append(chunk)
        if self._fields_left is not None:
            self._fields_left -= chunk.count(b"&")
            if self._fields_left < 0:
                most = _max_fields(self._scope)
                _refuse({"loc": ["body"], "msg": f"A form may have {most} fields at most", "type": "form_fields"})

    def _begin(self) -> None:
        if expected := _expected_instead(self._scope, self._media_type):
            _refuse({"loc": CONTENT_TYPE, "msg": f"The body must be {expected}", "type": "content_type"})
        self._limit = size_limit(self._scope, self._limit, self._media_type)
        if "json" in self._media_type:
            self._check = _json_fault
        elif self._media_type == URLENCODED:
            self._check = _form_fault
            self._fields_left = _max_fields(self._scope) - 1
        elif self._media_type == MULTIPART and not isinstance(_body_of(self._scope), File):
            self._check = _multipart_fault

    def _end(self) -> None:
        body = b"".join(self._chunks)
        self._chunks.clear()
        if self._check and (fault := self._check(self._scope, body)):
            _refuse(fault)


def _refuse(fault: Fault) -> None:
    raise RefusedBody(InvalidInputError(errors=[fault]))


def _expected_instead(scope: Scope, kind: str) -> str | None:
    """The type of body to send instead, where the operation of a request cannot read `kind`.

    An operation that declares no body, or one of a type of its own, reads for itself.
    """
    body = _body_of(scope)
    if body is None:
        return None
    if isinstance(body, File):
        return None if kind == MULTIPART else MULTIPART
    if isinstance(body, Form):
        return None  # Starlette parses no form of another content type: FastAPI then says which fields are missing
    return JSON if body.media_type == JSON and not is_json(kind) else None


def _body_of(scope: Scope) -> Body | None:
    field: Any = getattr(scope.get("route"), "body_field", None)
    return field.field_info if field is not None and isinstance(field.field_info, Body) else None


def _max_fields(scope: Scope) -> int:
    """The limit that FastAPI applies too: the scope has those of the application and the routers."""
    declared = {**scope.get("fastapi", {}).get("form_limits", {}), **getattr(scope.get("route"), "form_limits", {})}
    most: int = declared.get("max_fields", MAX_FORM_FIELDS)
    return most


def _json_fault(scope: Scope, body: bytes) -> Fault | None:
    route = route_of(scope)
    mebibytes = ((route and route.max_body_size) or 0) // 2**20
    fault = json_fault(body, MAX_NODES * max(1, mebibytes))
    return {"loc": ["body"], "type": fault[0], "msg": fault[1]} if fault else None


def _form_fault(scope: Scope, body: bytes) -> Fault | None:
    name = unstorable_field(body)
    return None if name is None else text_fault(scope, ["body", name])


def _multipart_fault(scope: Scope, body: bytes) -> Fault | None:
    return None if is_text(body) else text_fault(scope, ["body"])
