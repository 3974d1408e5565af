"""Routes of this module."""

from fastapi import APIRouter, FastAPI, Response
from fastapi.requests import HTTPConnection

from app.auth.deps import origin_of
from app.auth.events import AccessRefused
from app.auth.exceptions import ActionNotAllowed
from app.auth.routes.v1 import auth, profile, roles, users
from app.core.api.errors import handle_error
from app.core.api.routes import route_table
from app.core.api.throttle import Throttle
from app.core.identity import principal_of
from app.core.services.events.interface import current_events

router_v1 = APIRouter()
for router in (auth.router, profile.sessions, profile.router, users.router, roles.router):
    router_v1.include_router(router)

_refusals = Throttle("access-refused", (1, 60))


def register(app: FastAPI) -> None:
    """Add the routes outside the API, and have refusals by policies told."""
    app.include_router(auth.well_known)
    app.add_exception_handler(ActionNotAllowed, _refuse)  # type: ignore[arg-type]  # called with these alone


async def _refuse(connection: HTTPConnection, exc: ActionNotAllowed) -> Response:
    """Answer a refusal; the unit of work of the request has ended, so the event is stored in one of its own."""
    caller = getattr(connection.state, "current_user", None)
    if caller and (await _refusals.count(f"{principal_of(connection)} {exc.missing}")).allowed:
        route = route_table(connection.app).template(connection.scope)
        about = {"user_id": caller.id, "actor_id": caller.id, "origin": origin_of(connection)}
        current_events().dispatch(AccessRefused(permission=exc.missing, route=route, **about))
    return await handle_error(connection, exc)
