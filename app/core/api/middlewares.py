"""The layers around every request, as plain ASGI: each costs a few microseconds."""

import re
import time
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core.api.errors import EXC_INFO, internal_error, remember
from app.core.api.limit_fields import limit_fields
from app.core.api.problems import PROBLEM_CODE
from app.core.api.routes import RouteTemplates
from app.core.services.log import correlation, logger
from app.core.services.log.context import new_id
from app.core.services.log.setup import mark_logged

REQUEST_ID = "X-Request-ID"
CONVERSATION_ID = "X-Conversation-ID"

_REQUEST_ID = REQUEST_ID.lower().encode()
_CONVERSATION_ID = CONVERSATION_ID.lower().encode()

CLIENT_GONE = 499
"""What the access log says where the client left before it had its answer (nginx's number)."""

_WELL_FORMED = re.compile(rb"[A-Za-z0-9._-]{1,64}")


class CorrelationIds:
    """Gives every request an id and a conversation: the caller's where well formed, new ones otherwise."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        request = _header(scope, _REQUEST_ID) or new_id()
        conversation = _header(scope, _CONVERSATION_ID) or new_id()

        ids = [(_REQUEST_ID, request.encode()), (_CONVERSATION_ID, conversation.encode())]

        async def send_with_ids(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *ids]
            await send(message)

        with correlation(request, conversation):
            await self.app(scope, receive, send_with_ids)


def _header(scope: Scope, wanted: bytes) -> str | None:
    for name, value in scope["headers"]:
        if name == wanted and _WELL_FORMED.fullmatch(value):
            return bytes(value).decode("ascii")
    return None


class AccessLog:
    """Writes exactly one line a request, whatever becomes of it; never the raw URL, which may hold secrets."""

    def __init__(self, app: ASGIApp, templates: RouteTemplates) -> None:
        self.app = app
        self.templates = templates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = _Exchange(receive, send)
        try:
            await self.app(scope, exchange.receive, exchange.send)
        except Exception as exc:
            remember(scope, exc)
            mark_logged(exc)
            raise
        finally:
            self._write(scope, exchange)

    def _write(self, scope: Scope, exchange: "_Exchange") -> None:
        exc_info = scope.get(EXC_INFO)
        status = exchange.final_status(failed=exc_info is not None)
        values: dict[str, Any] = {
            "method": scope["method"],
            "route": self.templates.of(scope),
            "status": int(status),  # an HTTPStatus is shown with its name
            "duration_ms": exchange.milliseconds(),
            "client": scope["client"][0] if scope.get("client") else None,
        }
        if code := scope.get(PROBLEM_CODE):
            values["code"] = code
        if exc_info:
            logger.error("request", **values, exc_info=exc_info)
        else:
            logger.info("request", **values)


class _Exchange:
    """Watches one request and its answer."""

    def __init__(self, receive: Receive, send: Send) -> None:
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
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
        await self._send(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self._ended = time.perf_counter()

    def final_status(self, *, failed: bool) -> int:
        """The status the client got, 499 where it got none or not all."""
        if self._client_left or (self._status is None and not failed):
            return CLIENT_GONE
        return self._status or 500

    def milliseconds(self) -> float:
        """Until the last byte was handed over."""
        return round(((self._ended or time.perf_counter()) - self._begun) * 1000, 2)


class SecurityHeaders:
    """Adds the headers that keep browsers careful, where the answer has not set its own, and what limits are left."""

    def __init__(self, app: ASGIApp, *, hsts: bool) -> None:
        self.app = app
        self.headers = [
            (b"x-content-type-options", b"nosniff"),
            (b"x-frame-options", b"DENY"),
            (b"referrer-policy", b"no-referrer"),
            (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
            (b"cache-control", b"no-store"),
        ]
        if hsts:
            self.headers.append((b"strict-transport-security", b"max-age=31536000"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = list(message.get("headers", ()))
                names = {name for name, _ in given}
                message["headers"] = [
                    *given,
                    *(header for header in self.headers if header[0] not in names),
                    *limit_fields(scope),
                ]
            await send(message)

        await self.app(scope, receive, send_with_headers)


class ErrorBoundary:
    """Answers what nothing else handled, inside the layers that add ids and headers; the access log shows it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun = False

        async def watch(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(scope, receive, watch)
        except Exception as exc:
            if begun:
                raise  # half an answer is out: only closing the connection tells the client
            await internal_error(scope, exc)(scope, receive, send)
