"""Every error as an answer. The only place where our errors meet HTTP status codes."""

import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from functools import wraps
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Response
from fastapi.exceptions import RequestValidationError, WebSocketRequestValidationError
from fastapi.requests import HTTPConnection
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.status import WS_1008_POLICY_VIOLATION, WS_1011_INTERNAL_ERROR, WS_1013_TRY_AGAIN_LATER
from starlette.types import Scope
from starlette.websockets import WebSocket, WebSocketState

from app.core import exceptions as kinds
from app.core.api.problems import PROBLEM_CODE, input_problem, problem, title_of
from app.core.api.routes import allowed_methods, route_of

STATUS_OF: Mapping[type[kinds.AppError], HTTPStatus] = {
    kinds.AppError: HTTPStatus.BAD_REQUEST,
    kinds.AuthenticationError: HTTPStatus.UNAUTHORIZED,
    kinds.PermissionDeniedError: HTTPStatus.FORBIDDEN,
    kinds.NotFoundError: HTTPStatus.NOT_FOUND,
    kinds.ConflictError: HTTPStatus.CONFLICT,
    kinds.InvalidInputError: HTTPStatus.UNPROCESSABLE_ENTITY,
    kinds.RateLimitedError: HTTPStatus.TOO_MANY_REQUESTS,
    kinds.UnavailableError: HTTPStatus.SERVICE_UNAVAILABLE,
}
"""The status of each kind of AppError; a subclass has its nearest base's."""

_CODE_OF = {
    HTTPStatus.UNAUTHORIZED: kinds.AuthenticationError.code,
    HTTPStatus.FORBIDDEN: kinds.PermissionDeniedError.code,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "content_too_large",
    HTTPStatus.REQUEST_URI_TOO_LONG: "uri_too_long",
    HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE: "range_not_satisfiable",
    HTTPStatus.UNPROCESSABLE_ENTITY: kinds.InvalidInputError.code,
    HTTPStatus.TOO_MANY_REQUESTS: kinds.RateLimitedError.code,
    HTTPStatus.SERVICE_UNAVAILABLE: kinds.UnavailableError.code,
}

EXC_INFO = "kit.exc_info"
"""Where the scope keeps the exception behind a 5xx, for the access log."""

# Not "no such table" and the like: SQLite calls those operational too.
_SQLITE_OUTAGES = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_CANTOPEN", "SQLITE_IOERR", "SQLITE_FULL", "SQLITE_READONLY")


class RefusedBody(HTTPException):
    """Why a body is not read any further. An HTTPException: FastAPI makes a 400 of others while it reads."""

    def __init__(self, error: kinds.AppError) -> None:
        super().__init__(HTTPStatus.UNPROCESSABLE_ENTITY)
        self.error = error


def add_error_handlers(app: FastAPI) -> None:
    """Render every error of `app` as a problem."""
    handlers: dict[type[Exception], Callable[[Any, Any], Awaitable[Response]]] = {
        kinds.AppError: _app_error,
        RequestValidationError: _validation_error,
        WebSocketRequestValidationError: _validation_error,
        HTTPException: _http_error,
        RefusedBody: _refused_body,
        DBAPIError: _unexpected_error,
        PoolTimeout: _unexpected_error,
        # For what fails outside the error boundary; that answer carries no ids.
        Exception: _unexpected_error,
    }
    app.exception_handlers |= {kind: _on_any_connection(handler) for kind, handler in handlers.items()}


def with_known_names(scope: Scope, fault: Mapping[str, Any]) -> dict[str, Any]:
    """The fault, `?` in its place for each name that the operation does not declare."""
    part, *names = fault["loc"]
    route = route_of(scope)
    known = route.field_names if route else ()
    return {**fault, "loc": [part, *(name if isinstance(name, int) or name in known else "?" for name in names)]}


def failure(scope: Scope, exc: Exception) -> Response:
    """The 503 while the database is away, the 500 otherwise. Says nothing of the cause, which goes to the log."""
    remember(scope, exc)
    if _is_outage(exc):
        outage = kinds.UnavailableError
        return problem(scope, HTTPStatus.SERVICE_UNAVAILABLE, outage.code, outage.default_detail)
    return problem(scope, HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error", "Something went wrong on our side.")


async def close(websocket: WebSocket, answer: Response) -> None:
    """Close an accepted websocket with the code that comes nearest to `answer`."""
    again = answer.status_code in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
    failed = answer.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR
    code = WS_1013_TRY_AGAIN_LATER if again else WS_1011_INTERNAL_ERROR if failed else WS_1008_POLICY_VIOLATION
    await websocket.close(code, websocket.scope.get(PROBLEM_CODE))


def _on_any_connection(
    render: Callable[[HTTPConnection, Any], Awaitable[Response]],
) -> Callable[[HTTPConnection, Any], Awaitable[Any]]:
    """Have an accepted websocket closed, which is too late for an answer; before that it gets one as any request."""

    @wraps(render)
    async def handle(connection: HTTPConnection, exc: Exception) -> Response | None:
        answer = await render(connection, exc)
        if not isinstance(connection, WebSocket) or connection.application_state is WebSocketState.CONNECTING:
            return answer
        if connection.application_state is WebSocketState.CONNECTED:
            await close(connection, answer)
        return None

    return handle


def remember(scope: Scope, exc: Exception) -> None:
    """Keep the exception for the access log, with its traceback, which Starlette clears."""
    scope[EXC_INFO] = (type(exc), exc, exc.__traceback__)


async def _app_error(connection: HTTPConnection, exc: kinds.AppError) -> Response:
    status = next(STATUS_OF[kind] for kind in type(exc).__mro__ if kind in STATUS_OF)
    if isinstance(exc, kinds.InvalidInputError):
        return input_problem(connection.scope, exc.errors, code=exc.code, detail=exc.detail)
    headers = {}
    if isinstance(exc, kinds.RateLimitedError | kinds.UnavailableError):
        headers["Retry-After"] = str(exc.retry_after)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR and exc.__cause__:
        remember(connection.scope, exc)
    return problem(connection.scope, status, exc.code, exc.detail, headers=headers, extra=exc.extra)


async def _validation_error(
    connection: HTTPConnection, exc: RequestValidationError | WebSocketRequestValidationError
) -> Response:
    return input_problem(connection.scope, (with_known_names(connection.scope, fault) for fault in exc.errors()))


async def _refused_body(connection: HTTPConnection, exc: RefusedBody) -> Response:
    return await _app_error(connection, exc.error)


async def _http_error(connection: HTTPConnection, exc: HTTPException) -> Response:
    headers = dict(exc.headers or {})
    if exc.status_code in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED):
        return Response(status_code=exc.status_code, headers=headers)
    if exc.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        # The router names the methods of the first route that fits the path only.
        headers["Allow"] = ", ".join(allowed_methods(connection.app, connection.scope))
    detail = exc.detail if isinstance(exc.detail, str) else ""
    title = title_of(exc.status_code)
    return problem(connection.scope, exc.status_code, _code_of(exc.status_code), detail or title, headers=headers)


async def _unexpected_error(connection: HTTPConnection, exc: Exception) -> Response:
    return failure(connection.scope, exc)


def _is_outage(exc: Exception) -> bool:
    """Whether the database, rather than the statement, is at fault."""
    if isinstance(exc, PoolTimeout):
        return True
    if isinstance(exc, DBAPIError) and exc.connection_invalidated:
        return True
    if not isinstance(exc, OperationalError):
        return False
    if isinstance(exc.orig, sqlite3.Error):
        return getattr(exc.orig, "sqlite_errorname", "").startswith(_SQLITE_OUTAGES)
    return True


def _code_of(status: int) -> str:
    try:
        known = HTTPStatus(status)
    except ValueError:
        return "error"
    return _CODE_OF.get(known, known.name.lower())
