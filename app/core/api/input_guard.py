"""Refuses input that is too large, ambiguous, or holds text that cannot be stored, before anything reads it.

NUL and lone surrogates are valid in JSON and in percent-encoding, and PostgreSQL refuses both; Starlette
replaces invalid UTF-8 silently. A body is checked while it is read: by then its route is known.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote_to_bytes

from fastapi.params import Body, File, Form
from fastapi.requests import HTTPConnection, Request
from fastapi.routing import iter_route_contexts
from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core.api.errors import RefusedBody
from app.core.api.json_bodies import MAX_NODES, NOT_TEXT, check_json, is_text
from app.core.api.limiter import limits_by_address
from app.core.api.problems import with_known_names
from app.core.api.routes import route_of
from app.core.exceptions import AppError, InvalidInputError

JSON = "application/json"
URLENCODED = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data"

MAX_PATH_SIZE = 4096
"""Below the 4,300 digits that int() takes: `{id:int}` in a route calls it before anything can refuse the number."""
MAX_QUERY_SIZE = 64 * 1024
MAX_QUERY_FIELDS = 1000
MAX_CONTENT_TYPE_SIZE = 1000
MAX_COOKIE_COST = 4 * 1024 * 1024
"""Bytes of the cookies times their backslashes: before 3.11.10 and 3.12.6, Python reads the rest anew for each one."""
MAX_FORM_SIZE = 256 * 1024
"""Bytes of an urlencoded form whose route declares no `max_body_size`: decoding one is slow."""
MAX_FORM_FIELDS = 100
"""Fields of a form whose route declares no `form_limits`."""

_CONTENT_TYPE = ["header", "content-type"]
_HOST = re.compile(r"[\w.~%!$&'()*+,;=:\[\]-]*", re.ASCII)

# A quick look for NUL and non-ASCII bytes, raw or percent-encoded: a form without any need not be decoded to be valid.
_SUSPECT = re.compile(rb"%(?:00|[89a-fA-F])|[\0\x80-\xff]")


def media_type(content_type: str) -> str:
    """Return the type without its parameters, in lower case."""
    return content_type.partition(";")[0].strip().lower()


def is_json(kind: str) -> bool:
    """Check if FastAPI reads a body of this type as JSON."""
    return kind == JSON or (kind.startswith("application/") and kind.endswith("+json"))


def client_left(connection: HTTPConnection) -> Callable[[], Awaitable[None]]:
    """Return a function that waits until the client has gone; call it once the body has been read."""

    async def wait() -> None:
        if isinstance(connection, Request):
            while (await connection.receive())["type"] != "http.disconnect":
                pass
        else:
            await asyncio.Event().wait()

    return wait


class InputGuard:
    """Limits queries, and bodies to `max_body_size` bytes unless their route declares another limit.

    Refuses what RFC 9112 section 3.2 calls a bad request, and text that cannot be stored.
    """

    def __init__(self, app: ASGIApp, max_body_size: int) -> None:
        self.app = app
        self.max_body_size = max_body_size
        self._lowest: int | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            headers = Headers(scope=scope)
            content_type = headers.get("content-type", "").lower()
            _check_credentials(scope, headers)
            _check_address(scope)
            _check_content_type(content_type)
            length = headers.get("content-length", "")
            if length.isdecimal() and int(length) > self._lowest_limit(scope):
                _check_size(int(length), _size_limit(scope, self.max_body_size, media_type(content_type)))
            if scope["type"] == "http":
                receive = CheckedBody(scope, receive, self.max_body_size, media_type(content_type))
        await self.app(scope, receive, send)

    def _lowest_limit(self, scope: Scope) -> int:
        """Return the size up to which every route takes a body: most requests need not be routed to check it."""
        if self._lowest is None:
            routes = iter_route_contexts(scope["app"].routes) if "app" in scope else ()
            declared = [getattr(route, "max_body_size", None) for route in routes]
            self._lowest = min(self.max_body_size, MAX_FORM_SIZE, *(size for size in declared if size is not None))
        return self._lowest


def _check_credentials(scope: Scope, headers: Headers) -> None:
    hosts = headers.getlist("host")
    may_lack_host = scope.get("http_version") == "1.0"
    if len(hosts) > 1 or not (hosts or may_lack_host) or not all(map(_HOST.fullmatch, hosts)):
        raise HTTPException(HTTPStatus.BAD_REQUEST, "A request must name its host in exactly one Host field.")
    if len(headers.getlist("authorization")) > 1:
        raise HTTPException(HTTPStatus.BAD_REQUEST, "A request may have one Authorization field at most.")
    cookies = "".join(headers.getlist("cookie"))
    if len(cookies) * cookies.count("\\") > MAX_COOKIE_COST:
        raise HTTPException(HTTPStatus.BAD_REQUEST, "The cookies have too many backslashes for their size.")


def _check_address(scope: Scope) -> None:
    path, query = scope["path"], scope["query_string"]
    if len(path) > MAX_PATH_SIZE or len(query) > MAX_QUERY_SIZE:
        message = f"A path may have {MAX_PATH_SIZE} characters at most, a query {MAX_QUERY_SIZE} bytes."
        raise HTTPException(HTTPStatus.REQUEST_URI_TOO_LONG, message)
    if query.count(b"&") >= MAX_QUERY_FIELDS:  # parsing takes more than its bytes
        raise _fault(["query"], "query_fields", f"A query may have {MAX_QUERY_FIELDS} fields at most")
    raw_path = scope.get("raw_path") or b""  # in the decoded one, what is no UTF-8 has been replaced
    if "\0" in path or (_SUSPECT.search(raw_path) and not is_text(unquote_to_bytes(raw_path))):
        raise _text_fault(scope, ["path"])
    if (name := _unstorable_field(query)) is not None:
        raise _text_fault(scope, ["query", name])


def _check_content_type(content_type: str) -> None:
    if len(content_type) > MAX_CONTENT_TYPE_SIZE:  # parsing takes more than its bytes
        raise _fault(_CONTENT_TYPE, "content_type", f"A content type may have {MAX_CONTENT_TYPE_SIZE} bytes at most")
    if "multipart/" in content_type:
        _, options = parse_options_header(content_type)
        if options.get(b"charset", b"utf-8") not in (b"utf-8", b"utf8"):  # Starlette takes any codec that Python has
            raise _fault(_CONTENT_TYPE, "string_unicode", NOT_TEXT)


class CheckedBody:
    """The `receive` of a request; raises RefusedBody for a body that must be refused.

    FastAPI reads the body before it calls any dependency, so limits that count addresses are counted at the first read.
    """

    def __init__(self, scope: Scope, receive: Receive, default_limit: int, kind: str) -> None:
        self._scope = scope
        self._receive = receive
        self._limit = default_limit
        self._media_type = kind
        self._admitted = False
        self._size = 0

    async def __call__(self) -> Message:
        try:
            if not self._admitted and "endpoint" in self._scope:
                self._admitted = True
                for limit in limits_by_address(self._scope):
                    await limit(HTTPConnection(self._scope))
            return await self._next()
        except AppError as exc:
            raise RefusedBody(exc) from exc

    async def _next(self) -> Message:
        """Return the next piece of the body, or all of it if it must be checked as a whole."""
        message = await self._receive()
        if self._size or not message.get("body"):
            self._measure(message)
            return message
        self._check_type()
        self._limit = _size_limit(self._scope, self._limit, self._media_type)
        self._measure(message)
        if not (check := self._check()):
            return message
        pieces = [message["body"]]
        while message.get("more_body", False):
            message = await self._receive()
            if message["type"] != "http.request":
                return message  # the client left
            self._measure(message)
            pieces.append(message.get("body", b""))
        body = b"".join(pieces)
        check(body)
        return {**message, "body": body}

    def _measure(self, message: Message) -> None:
        self._size += len(message.get("body", b""))
        _check_size(self._size, self._limit)

    def _check_type(self) -> None:
        """Refuse a type that the operation cannot read. One that declares no body, or a type, reads for itself."""
        declared = self._declared_body()
        if isinstance(declared, File):
            expected = MULTIPART if self._media_type != MULTIPART else None
        elif declared is None or isinstance(declared, Form) or declared.media_type != JSON:
            expected = None  # Starlette parses no form of another type: FastAPI then says which fields are missing
        else:
            expected = JSON if not is_json(self._media_type) else None
        if expected:
            raise _fault(_CONTENT_TYPE, "content_type", f"The body must be {expected}")

    def _check(self) -> Callable[[bytes], None] | None:
        if "json" in self._media_type:
            return self._check_json
        if self._media_type == URLENCODED:
            return self._check_form
        is_multipart_text = self._media_type == MULTIPART and not isinstance(self._declared_body(), File)
        return self._check_multipart if is_multipart_text else None

    def _check_json(self, body: bytes) -> None:
        route = route_of(self._scope)
        mebibytes = ((route and route.max_body_size) or 0) // 2**20
        check_json(body, MAX_NODES * max(1, mebibytes))

    def _check_form(self, body: bytes) -> None:
        # As FastAPI does: the scope has the limits of the application and the routers.
        inherited = self._scope.get("fastapi", {}).get("form_limits", {})
        limits = {**inherited, **getattr(self._scope.get("route"), "form_limits", {})}
        most = limits.get("max_fields", MAX_FORM_FIELDS)
        if body.count(b"&") >= most:
            raise _fault(["body"], "form_fields", f"A form may have {most} fields at most")
        if (name := _unstorable_field(body)) is not None:
            raise _text_fault(self._scope, ["body", name])

    def _check_multipart(self, body: bytes) -> None:
        if not is_text(body):
            raise _text_fault(self._scope, ["body"])

    def _declared_body(self) -> Body | None:
        field: Any = getattr(self._scope.get("route"), "body_field", None)
        return field.field_info if field is not None and isinstance(field.field_info, Body) else None


def _size_limit(scope: Scope, default: int, kind: str) -> int:
    """Return the most bytes a body of this type may have: the `max_body_size` of its route, or the default."""
    route = route_of(scope)
    if route and route.max_body_size is not None:
        return route.max_body_size
    return min(default, MAX_FORM_SIZE) if kind == URLENCODED else default


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"A body may have {limit} bytes at most.")


def _unstorable_field(encoded: bytes) -> str | None:
    """Return the name of the first field of an encoded query or form that is not valid UTF-8 without NUL."""
    if not _SUSPECT.search(encoded):
        return None
    for field in encoded.split(b"&"):
        if not is_text(unquote_to_bytes(field)):
            return unquote_to_bytes(field.partition(b"=")[0]).decode(errors="replace")
    return None


def _fault(loc: list[str], kind: str, message: str) -> InvalidInputError:
    return InvalidInputError(errors=[{"loc": loc, "msg": message, "type": kind}])


def _text_fault(scope: Scope, loc: list[str]) -> InvalidInputError:
    return InvalidInputError(errors=[with_known_names(scope, {"loc": loc, "msg": NOT_TEXT, "type": "string_unicode"})])
