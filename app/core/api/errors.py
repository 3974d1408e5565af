"""Every error as an answer. The only place where our errors meet HTTP status codes."""

import sqlite3
from collections.abc import Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.status import WS_1008_POLICY_VIOLATION, WS_1013_TRY_AGAIN_LATER
from starlette.types import Scope
from starlette.websockets import WebSocket, WebSocketState

from app.core import exceptions as kinds
from app.core.api.problems import input_problem, problem, title_of
from app.core.api.routes import allowed_methods

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
    """Text in a body that cannot be stored. An HTTPException: FastAPI makes a 400 of others while it reads."""

    def __init__(self, faults: list[dict[str, object]]) -> None:
        super().__init__(HTTPStatus.UNPROCESSABLE_ENTITY)
        self.faults = faults


def add_error_handlers(app: FastAPI) -> None:
    """Render every error of `app` as a problem."""
    app.exception_handlers |= {
        kinds.AppError: _app_error,  # type: ignore[dict-item]  # called for websockets too, and may answer nothing
        RequestValidationError: _validation_error,
        HTTPException: _http_error,
        RefusedBody: _refused_body,
        DBAPIError: _database_error,
        PoolTimeout: _database_error,
        # For what fails outside the error boundary; that answer carries no ids.
        Exception: _unexpected_error,
    }


def internal_error(scope: Scope, exc: Exception) -> Response:
    """The 500: says nothing of the cause, which goes to the log."""
    remember(scope, exc)
    return problem(scope, HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error", "Something went wrong on our side.")


def remember(scope: Scope, exc: Exception) -> None:
    """Keep the exception for the access log, with its traceback, which Starlette clears."""
    scope[EXC_INFO] = (type(exc), exc, exc.__traceback__)


async def _app_error(request: Request | WebSocket, exc: kinds.AppError) -> Response | None:
    if isinstance(request, WebSocket) and request.application_state is not WebSocketState.CONNECTING:
        # Too late for an answer; before it was accepted, a websocket gets the problem as any request does.
        if request.application_state is WebSocketState.CONNECTED:
            again = isinstance(exc, kinds.RateLimitedError | kinds.UnavailableError)
            await request.close(WS_1013_TRY_AGAIN_LATER if again else WS_1008_POLICY_VIOLATION, exc.code)
        return None
    status = next(STATUS_OF[kind] for kind in type(exc).__mro__ if kind in STATUS_OF)
    if isinstance(exc, kinds.InvalidInputError):
        return input_problem(request.scope, exc.errors, code=exc.code, detail=exc.detail)
    headers = {}
    if isinstance(exc, kinds.RateLimitedError | kinds.UnavailableError):
        headers["Retry-After"] = str(exc.retry_after)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR and exc.__cause__:
        remember(request.scope, exc)
    return problem(request.scope, status, exc.code, exc.detail, headers=headers, extra=exc.extra)


async def _validation_error(request: Request, exc: RequestValidationError) -> Response:
    return input_problem(request.scope, exc.errors())


async def _refused_body(request: Request, exc: RefusedBody) -> Response:
    return input_problem(request.scope, exc.faults)


async def _http_error(request: Request, exc: HTTPException) -> Response:
    headers = dict(exc.headers or {})
    if exc.status_code in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED):
        return Response(status_code=exc.status_code, headers=headers)
    if exc.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        # The router names the methods of the first route that fits the path only.
        headers["Allow"] = ", ".join(allowed_methods(request.app, request.scope))
    detail = exc.detail if isinstance(exc.detail, str) else ""
    title = title_of(exc.status_code)
    return problem(request.scope, exc.status_code, _code_of(exc.status_code), detail or title, headers=headers)


async def _database_error(request: Request, exc: Exception) -> Response:
    if not _is_outage(exc):
        return internal_error(request.scope, exc)
    remember(request.scope, exc)
    outage = kinds.UnavailableError
    return problem(request.scope, HTTPStatus.SERVICE_UNAVAILABLE, outage.code, outage.default_detail)


async def _unexpected_error(request: Request, exc: Exception) -> Response:
    return internal_error(request.scope, exc)


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
