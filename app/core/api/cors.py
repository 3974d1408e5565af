"""CORS: pages of other origins that may call the API, and the headers they may send and read."""

from collections.abc import Iterator, Sequence

from fastapi.dependencies.utils import get_flat_params
from fastapi.params import Header
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from app.core.api.problems import problem
from app.core.api.routes import all_routes, listed_routes
from app.core.configs import AppConfig
from app.core.identity import credential_headers
from app.core.services.cache.results import key_headers
from app.core.services.log.context import CONVERSATION_ID, REQUEST_ID

_ALLOWED_HEADERS = ["Authorization", "Content-Type", "If-None-Match", REQUEST_ID, CONVERSATION_ID]
_EXPOSED_HEADERS = [
    REQUEST_ID,
    CONVERSATION_ID,
    "X-Total-Count",
    "ETag",
    "Link",
    "Retry-After",
    "RateLimit",
    "RateLimit-Policy",
]


class CrossOrigin(CORSMiddleware):
    """CORS for `BACKEND_CORS_ORIGINS` that allows every header that a route of `routes_of` declares."""

    def __init__(self, app: ASGIApp, *, routes_of: Starlette, settings: AppConfig) -> None:
        # Made with the first request, when every route is known.
        allowed = [*_ALLOWED_HEADERS, *settings.BACKEND_CORS_HEADERS, *declared_headers(routes_of.routes)]
        allowed += credential_headers()
        super().__init__(
            app,
            allow_origins=[origin.rstrip("/") for origin in settings.BACKEND_CORS_ORIGINS],
            allow_methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=list({name.lower(): name for name in allowed}.values()),
            expose_headers=_EXPOSED_HEADERS,
            allow_credentials=settings.CORS_ALLOW_CREDENTIALS,
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        answer = super().preflight_response(request_headers)
        return answer if answer.status_code == 200 else _Refusal(answer.body, answer.status_code, answer.headers)


class _Refusal(PlainTextResponse):
    """Refuses a preflight with a problem."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name: value for name, value in self.headers.items() if not name.startswith("content-")}
        detail = f"{bytes(self.body).decode()}."
        await problem(scope, self.status_code, "cors_refused", detail, headers=headers)(scope, receive, send)


def declared_headers(routes: Sequence[BaseRoute]) -> Iterator[str]:
    """Yield the header parameters and key headers of all routes, those of mounted applications too."""
    for route in all_routes(listed_routes(routes)):
        if route.dependant:
            declared = get_flat_params(route.dependant)
            yield from (field.alias for field in declared if isinstance(field.field_info, Header))
            yield from key_headers(route.dependant)
