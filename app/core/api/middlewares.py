"""Layers around every request: ids, the access log, security headers. Plain ASGI: each costs a few microseconds."""

import re
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core.api.errors import EXC_INFO, MISSING, remember
from app.core.api.limiter import limit_fields
from app.core.api.problems import PROBLEM_CODE
from app.core.api.routes import WEBSOCKET, RouteTable
from app.core.db.base import utcnow
from app.core.identity import principal_of
from app.core.metrics import count_request, in_flight
from app.core.services.log import correlation, logger
from app.core.services.log.context import CONVERSATION_ID, REQUEST_ID, new_id
from app.core.services.log.service import mark_logged

_ARRIVED_AT = "kit.arrived_at"
CLIENT_GONE = 499
"""Status in the access log when the client left before it had its answer (nginx's number)."""

_COOKIE = "conversation_id"
# Not Starlette's cookies: they cost more than their bytes, and the input guard stands behind this.
_COOKIE_GIVEN = re.compile(rf"(?:^|;) *{_COOKIE}=([A-Za-z0-9._-]{{1,64}}) *(?:;|$)")
_WELL_FORMED = re.compile(r"[A-Za-z0-9._-]{1,64}")
_UNSHARED = re.compile(r"no-store|private", re.IGNORECASE)  # RFC 9111 section 3

_ANSWERS = ("http.response.start", "websocket.http.response.start")


def arrived_at(connection: HTTPConnection) -> datetime:
    """Return when the whole request had arrived. Judge a caller's deadline by it, not by how long we took."""
    return connection.scope.get(_ARRIVED_AT) or utcnow()


class CorrelationIds:
    """Gives every request an id and a conversation: the caller's where well formed, new ones otherwise.

    A conversation comes from its header or, as browsers send it by themselves, from a cookie. Who brings neither is
    given the cookie with an answer that is `private` or `no-store`, as ours are by default; it ends with the browser.
    """

    def __init__(self, app: ASGIApp, *, cookie: bool, secure: bool) -> None:
        self.app = app
        self.cookie = cookie
        self.attributes = "; Path=/; HttpOnly; SameSite=Lax" + ("; Secure" if secure else "")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        request = _well_formed(connection.headers.get(REQUEST_ID)) or new_id()
        given = _well_formed(connection.headers.get(CONVERSATION_ID))
        if self.cookie and not given:
            given = _conversation_in(connection.headers.getlist("cookie"))
        conversation = given or new_id()
        cookie = f"{_COOKIE}={conversation}{self.attributes}" if self.cookie and not given else None

        async def send_with_ids(message: Message) -> None:
            if message["type"] in (*_ANSWERS, "websocket.accept"):
                headers = _headers_of(message)
                headers[REQUEST_ID] = request
                headers[CONVERSATION_ID] = conversation
                is_private = any(map(_UNSHARED.search, headers.getlist("cache-control")))
                if cookie and (is_private or message["type"] == "websocket.accept"):
                    headers.append("set-cookie", cookie)
            await send(message)

        with correlation(request, conversation):
            await self.app(scope, receive, send_with_ids)


def _well_formed(given: str | None) -> str | None:
    return given if given and _WELL_FORMED.fullmatch(given) else None


def _conversation_in(cookies: Sequence[str]) -> str | None:
    found = next(filter(None, map(_COOKIE_GIVEN.search, cookies)), None)
    return found[1] if found else None


def _headers_of(start: Message) -> MutableHeaders:
    """Return the headers of an answer that is about to start, to change in place."""
    start.setdefault("headers", [])
    return MutableHeaders(scope=start)


class AccessLog:
    """Writes exactly one line a request, whatever becomes of it; never the raw URL, which may hold secrets.

    A websocket has a line where it was refused: one that opens may last for days. Behind it a HEAD request is a GET
    (RFC 9110 9.3.2), unless a route takes HEAD itself; no body goes out.
    """

    def __init__(self, app: ASGIApp, routes: RouteTable) -> None:
        self.app = app
        self.routes = routes
        self.in_flight = {"http": 0, "websocket": 0}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        method = scope.get("method", WEBSOCKET)
        if method == "HEAD":
            # A copy: the server looks into its own to know that there is no body.
            scope = {**scope, "method": "HEAD" if self.routes.answers_head(scope) else "GET"}
            scope["headers"] = [header for header in scope["headers"] if header[0] != b"range"]  # RFC 9110 14.2
        exchange = _Exchange(scope, receive, send, bodiless=method == "HEAD")
        self._count(scope["type"], 1)
        try:
            try:
                await self.app(scope, exchange.receive, exchange.send)
            except* _Complete:
                pass
        except Exception as exc:
            remember(scope, exc)
            mark_logged(exc)
            raise
        finally:
            self._count(scope["type"], -1)
            if not exchange.opened:
                self._write(method, scope, exchange)

    def _count(self, kind: str, change: int) -> None:
        self.in_flight[kind] += change
        in_flight.set(self.in_flight[kind], kind)

    def _write(self, method: str, scope: Scope, exchange: "_Exchange") -> None:
        exc_info = scope.get(EXC_INFO)
        status = exchange.final_status(failed=exc_info is not None)
        values: dict[str, Any] = {
            "method": method,
            "route": self.routes.template(scope),
            "status": int(status),  # an HTTPStatus is shown with its name
            "duration_ms": exchange.milliseconds(),
            "client": scope["client"][0] if scope.get("client") else None,
        }
        count_request(method, values["route"], values["status"], values["duration_ms"])
        if user := principal_of(HTTPConnection(scope)):
            values["user"] = user
        if code := scope.get(PROBLEM_CODE):
            values["code"] = code
        if missing := scope.get(MISSING):
            values["missing"] = missing
        if exc_info:
            logger.error("request", **values, exc_info=exc_info)
        else:
            logger.info("request", **values)


class _Complete(Exception):
    """Ends an application that goes on streaming the body of an answer to HEAD."""


class _Exchange:
    """Watches one request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, *, bodiless: bool) -> None:
        self.bodiless = bodiless
        self.opened = False
        self._scope = scope
        self._receive = receive
        self._send = send
        self._begun = time.perf_counter()
        self._ended: float | None = None
        self._status: int | None = None
        self._client_left = False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect" and self._ended is None:
            self._client_left = True
        elif message["type"] == "http.request" and not message.get("more_body", False):
            self._scope.setdefault(_ARRIVED_AT, utcnow())
        return message

    async def send(self, message: Message) -> None:
        if message["type"] in _ANSWERS:
            self._status = message["status"]
        elif message["type"] == "websocket.accept":
            self.opened = True
        elif message["type"] == "websocket.close":
            self._status = self._status or HTTPStatus.FORBIDDEN  # what a server makes of it before the socket is open
        more = message.get("more_body", False)
        if self.bodiless and message["type"] in ("http.response.body", "http.response.pathsend"):
            message = {"type": "http.response.body", "body": b""}
        await self._send(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self._ended = time.perf_counter()
            if more:
                raise _Complete

    def final_status(self, *, failed: bool) -> int:
        """Return the status the client got, 499 where it got none or not all."""
        if self._client_left or (self._status is None and not failed):
            return CLIENT_GONE
        return self._status or 500

    def milliseconds(self) -> float:
        """Return the time until the last byte was handed over."""
        return round(((self._ended or time.perf_counter()) - self._begun) * 1000, 2)


_NO_PAGE = "default-src 'none'; frame-ancestors 'none'"
_OWN_FILES = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:; "
    "object-src 'none'; base-uri 'self'; frame-ancestors 'none'"
)


class SecurityHeaders:
    """Adds security headers that the answer has not set itself, and the state of the limits it counted against.

    `policies` maps the beginning of a path, as `/admin`, to its Content-Security-Policy. Without one an answer of
    ours may load nothing, and a page of a mounted application files of this service and inline styles.
    """

    def __init__(self, app: ASGIApp, *, hsts: bool, policies: Mapping[str, str]) -> None:
        self.app = app
        self.policies = policies
        self.defaults = {
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
        }
        if hsts:
            self.defaults["Strict-Transport-Security"] = "max-age=31536000"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] in _ANSWERS:
                headers = _headers_of(message)
                for name, value in self.defaults.items():
                    headers.setdefault(name, value)
                headers.setdefault("Content-Security-Policy", self._policy(scope))
                headers.update(limit_fields(scope))
            await send(message)

        await self.app(scope, receive, send_with_headers)

    def _policy(self, scope: Scope) -> str:
        root = scope.get("app_root_path")  # set by a mount alone
        default = _NO_PAGE if root is None else _OWN_FILES
        if not self.policies:
            return default
        path = scope["path"].removeprefix(scope.get("root_path", "") if root is None else root)
        fitting = [start for start in self.policies if path == start or path.startswith(f"{start.rstrip('/')}/")]
        return self.policies[max(fitting, key=len)] if fitting else default
