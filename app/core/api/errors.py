"""Renders every error as an answer: the only place where errors of the application meet HTTP status codes."""

import asyncio
import sqlite3
from collections.abc import Mapping
from http import HTTPStatus

from fastapi import FastAPI, Response
from fastapi.exceptions import RequestValidationError, WebSocketRequestValidationError
from fastapi.requests import HTTPConnection
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.status import WS_1008_POLICY_VIOLATION, WS_1011_INTERNAL_ERROR, WS_1013_TRY_AGAIN_LATER
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from app.core import exceptions as kinds
from app.core.api.problems import PROBLEM_CODE, input_problem, problem, title_of, with_known_names
from app.core.api.routes import allowed_methods
from app.core.process import lifecycle
from app.core.services.background import PendingWork, pending_work
from app.core.services.log import logger

STATUS_OF: Mapping[type[kinds.AppError], HTTPStatus] = {
    kinds.AppError: HTTPStatus.BAD_REQUEST,
    kinds.AuthenticationError: HTTPStatus.UNAUTHORIZED,
    kinds.PermissionDeniedError: HTTPStatus.FORBIDDEN,
    kinds.NotFoundError: HTTPStatus.NOT_FOUND,
    kinds.ConflictError: HTTPStatus.CONFLICT,
    kinds.InvalidInputError: HTTPStatus.UNPROCESSABLE_ENTITY,
    kinds.RateLimitedError: HTTPStatus.TOO_MANY_REQUESTS,
    kinds.UnavailableError: HTTPStatus.SERVICE_UNAVAILABLE,
    kinds.UpstreamError: HTTPStatus.BAD_GATEWAY,
    kinds.UpstreamUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    kinds.UpstreamTimeout: HTTPStatus.GATEWAY_TIMEOUT,
}
"""The status of each kind of AppError; a subclass has its nearest base's."""

_CODE_OF: Mapping[int, str] = {
    **{status: status.name.lower() for status in HTTPStatus},
    **{
        status: kind.code
        for kind, status in STATUS_OF.items()
        if kind is not kinds.AppError and not issubclass(kind, kinds.UpstreamError)
    },
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "content_too_large",
    HTTPStatus.REQUEST_URI_TOO_LONG: "uri_too_long",
    HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE: "range_not_satisfiable",
}

EXC_INFO = "kit.exc_info"
"""Scope key: the exception behind a 5xx, for the access log."""
MISSING = "kit.missing_permission"
"""Scope key: the permission or role for lack of which the request was refused, for the access log."""

# Not "no such table" and the like: SQLite calls those operational too.
_SQLITE_OUTAGES = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_CANTOPEN", "SQLITE_IOERR", "SQLITE_FULL", "SQLITE_READONLY")

_DENIAL = "websocket.http.response"


class RefusedBody(HTTPException):
    """Stops the reading of a body. An HTTPException, because FastAPI makes a 400 of any other while it reads."""

    def __init__(self, error: kinds.AppError) -> None:
        super().__init__(HTTPStatus.UNPROCESSABLE_ENTITY)
        self.error = error


def add_error_handlers(app: FastAPI) -> None:
    """Render the errors of `app` as problems. The error boundary answers those that have no handler.

    The last handler is for what fails outside the boundary; that answer carries no ids.
    """
    defaults = (HTTPException, RequestValidationError, WebSocketRequestValidationError)
    for kind in (kinds.AppError, *defaults, Exception):
        app.add_exception_handler(kind, handle_error)


async def handle_error(connection: HTTPConnection, exc: Exception) -> Response:
    """Answer an error; for exception handlers of modules that do something beside."""
    if connection.scope["type"] == "websocket":
        raise exc  # the boundary knows whether it is too late for an answer
    return answer_to(connection.scope, exc)


def answer_to(scope: Scope, exc: Exception) -> Response:
    """Render an error as a problem."""
    if isinstance(exc, RefusedBody):
        exc = exc.error
    if isinstance(exc, kinds.AppError):
        return _app_error(scope, exc)
    if isinstance(exc, RequestValidationError | WebSocketRequestValidationError):
        return input_problem(scope, (with_known_names(scope, fault) for fault in exc.errors()))
    if isinstance(exc, HTTPException):
        return _http_error(scope, exc)
    return _unexpected_error(scope, exc)


def remember(scope: Scope, exc: Exception) -> None:
    """Keep the exception for the access log, with its traceback, which Starlette clears."""
    scope[EXC_INFO] = (type(exc), exc, exc.__traceback__)


def _app_error(scope: Scope, exc: kinds.AppError) -> Response:
    status = next(STATUS_OF[kind] for kind in type(exc).__mro__ if kind in STATUS_OF)
    if isinstance(exc, kinds.InvalidInputError):
        return input_problem(scope, exc.errors, code=exc.code, detail=exc.detail, extra=exc.extra)
    if isinstance(exc, kinds.PermissionDeniedError):
        scope[MISSING] = exc.missing
    headers = {} if exc.retry_after is None else {"Retry-After": str(exc.retry_after)}
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR and exc.__cause__:
        remember(scope, exc)
    return problem(scope, status, exc.code, exc.detail, headers=headers, extra=exc.extra)


def _http_error(scope: Scope, exc: HTTPException) -> Response:
    headers = dict(exc.headers or {})
    if exc.status_code in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED):
        return Response(status_code=exc.status_code, headers=headers)
    if exc.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        # The router names the methods of the first route that fits the path only.
        headers["Allow"] = ", ".join(allowed_methods(scope["app"], scope))
    detail = exc.detail if isinstance(exc.detail, str) else ""
    code = _CODE_OF.get(exc.status_code, kinds.AppError.code)
    return problem(scope, exc.status_code, code, detail or title_of(exc.status_code), headers=headers)


def _unexpected_error(scope: Scope, exc: Exception) -> Response:
    """Render a 503 while the database is away, a 500 otherwise. The cause goes to the log only."""
    remember(scope, exc)
    if _is_outage(exc):
        outage = kinds.UnavailableError
        return problem(scope, HTTPStatus.SERVICE_UNAVAILABLE, outage.code, outage.default_detail)
    return problem(scope, HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error", "Something went wrong on our side.")


def _is_outage(exc: Exception) -> bool:
    """Check if the database, rather than the statement, is at fault."""
    if isinstance(exc, PoolTimeout) or (isinstance(exc, DBAPIError) and exc.connection_invalidated):
        return True
    if isinstance(exc, OperationalError) and isinstance(exc.orig, sqlite3.Error):
        return getattr(exc.orig, "sqlite_errorname", "").startswith(_SQLITE_OUTAGES)
    return isinstance(exc, OperationalError)


class ErrorBoundary:
    """Answers errors inside the layers that add ids and headers, and lets no answer out before it can be relied on."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        elif scope["type"] != "http":
            await self.app(scope, receive, send)
        else:
            with pending_work() as pending:
                answer = _HeldAnswer(send, pending)
                try:
                    await self.app(scope, receive, answer.send)
                    await answer.release()
                except Exception as exc:
                    if answer.begun:
                        raise  # half an answer is out: only closing the connection tells the client
                    if left := answer.error:
                        await answer.replace(_unexpected_error(scope, left), scope, receive)
                    else:
                        await answer.replace(await _late_answer_to(scope, exc), scope, receive)
                except asyncio.CancelledError:
                    if answer.begun or not lifecycle.cancelling:
                        raise
                    await _cut_short(scope)(scope, receive, send)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        handshake = _Handshake(scope, send)
        try:
            await self.app(scope, receive, handshake.send)
        except WebSocketDisconnect:
            return  # raised by what waits for a message: the client has left, nothing failed
        except Exception as exc:
            answer = answer_to(scope, exc)
            if EXC_INFO in scope:
                logger.error("websocket failed", exc_info=scope[EXC_INFO])
            if not handshake.decided:
                await answer(scope, receive, handshake.send)
            elif handshake.is_open:
                close = {"type": "websocket.close", "code": _close_code(answer), "reason": scope.get(PROBLEM_CODE, "")}
                await handshake.send(close)


def _cut_short(scope: Scope) -> Response:
    """Render the answer to a request that did not finish within the grace time of shutdown."""
    detail = "The server is stopping and could not finish this request in time."
    return problem(scope, HTTPStatus.SERVICE_UNAVAILABLE, "shutting_down", detail, headers={"Connection": "close"})


async def _late_answer_to(scope: Scope, exc: Exception) -> ASGIApp:
    """Render an error that came after a held start. Starlette takes it for sent and wraps what it has a handler for."""
    cause = exc.__cause__
    if isinstance(cause, Exception) and str(exc).startswith("Caught handled exception"):
        handlers, _ = scope.get("starlette.exception_handlers", ({}, {}))
        if handler := next((handlers[kind] for kind in type(cause).__mro__ if kind in handlers), None):
            answer: ASGIApp = await handler(Request(scope), cause)
            return answer
    return answer_to(scope, exc)


class _HeldAnswer:
    """Holds the start of an answer until its first byte, and until what the request left to be done is done.

    The start of an event stream is not held until the first event, which may be long in coming.
    """

    def __init__(self, send: Send, pending: PendingWork) -> None:
        self._send = send
        self._pending = pending
        self._start: Message | None = None
        self.begun = False
        self.error: Exception | None = None

    async def send(self, message: Message) -> None:
        if not self.begun:
            if message["type"] == "http.response.start":
                self._start = message
                if not _is_event_stream(message):
                    return
            elif _is_empty_chunk(message):
                return
            await self.release()
            if message is self._start:
                return
        await self._send(message)

    async def release(self) -> None:
        """Do the pending work, then let the start out. What fails here is our error, never the client's."""
        if self._start is None or self.begun:
            return
        try:
            await self._pending.finish()
        except Exception as exc:
            self.error = exc  # Starlette, through which it passes, raises its own instead
            raise
        self.begun = True
        await self._send(self._start)

    async def replace(self, answer: ASGIApp, scope: Scope, receive: Receive) -> None:
        """Send this answer in the place of what was held."""
        if not self.error:
            try:
                await self._pending.finish()
            except Exception as exc:
                answer = _unexpected_error(scope, exc)
        self.begun = True
        await answer(scope, receive, self._send)


def _is_event_stream(start: Message) -> bool:
    types = (value for name, value in start.get("headers", ()) if name.lower() == b"content-type")
    return any(value.startswith(b"text/event-stream") for value in types)


def _is_empty_chunk(message: Message) -> bool:
    is_body = message["type"] == "http.response.body"
    return is_body and bool(message.get("more_body")) and not message.get("body")


class _Handshake:
    """Watches how a websocket begins. A refusal is a close where the server cannot send an answer."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._send = send
        self._can_answer = _DENIAL in (scope.get("extensions") or {})
        self.decided = False
        self.is_open = False

    async def send(self, message: Message) -> None:
        kind: str = message["type"]
        if kind.startswith(_DENIAL) and not self._can_answer:
            if kind.endswith(".body"):
                return
            message = {"type": "websocket.close", "code": WS_1008_POLICY_VIOLATION}
        self.decided = True
        self.is_open = kind == "websocket.accept" or (self.is_open and kind != "websocket.close")
        await self._send(message)


def _close_code(answer: Response) -> int:
    """Return the close code of an open websocket that comes nearest to an answer."""
    if answer.status_code in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        return WS_1013_TRY_AGAIN_LATER
    failed = answer.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR
    return WS_1011_INTERNAL_ERROR if failed else WS_1008_POLICY_VIOLATION
