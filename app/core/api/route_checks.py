"""Checks of the routes at start: units of work that would last too long, and limits that come too early."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from fastapi.dependencies.models import Dependant
from starlette.routing import BaseRoute

from app.core.api.collisions import route_collisions
from app.core.api.limiter import ConfigurableRateLimiter, early_limits
from app.core.api.routes import WEBSOCKET, ListedRoute, all_routes, listed_routes
from app.core.configs import PROJECT_ROOT
from app.core.deps import db_session
from app.core.exceptions import ConfigError
from app.core.identity import client_identity, is_identifying
from app.core.services.log import logger

_FIX = "take it out and open `async with session_scope() as db` (app.core.db) for each message"
_WHY = {
    "websocket": "DBSession would last as long as the socket, and with it SQLite's only write lock",
    "stream": "DBSession has ended when the first item is sent",
}


@dataclass(frozen=True)
class MisplacedLimit:
    """A limit that is meant for callers and comes before the dependency that tells who calls."""

    route: ListedRoute
    limit: ConfigurableRateLimiter

    @property
    def fix(self) -> str:
        """What to do about it."""
        return "put the dependency that identifies the caller before it, or give it key=client_address"

    def __str__(self) -> str:
        route = f"{self.route.path} ({self.route.name})"
        return f"{route}: the limit of {self.limit} counts addresses instead of callers; {self.fix}"


def check_units(routes: Sequence[BaseRoute]) -> None:
    """ConfigError with a line for each websocket and each event or item stream that takes DBSession."""
    faults = [
        f"{route.path} ({_place(route.endpoint)}) is a {kind}: {_WHY[kind]}; {_FIX}"
        for route in all_routes(listed_routes(routes))
        if (kind := _lasting(route)) and route.dependant and _takes_unit(route.dependant)
    ]
    if faults:
        raise ConfigError("\n".join(faults))


def misplaced_limits(routes: Sequence[BaseRoute]) -> list[MisplacedLimit]:
    """The limits of routes that know their caller only afterwards."""
    return [
        MisplacedLimit(route, limit)
        for route in listed_routes(routes)
        if any(map(is_identifying, route.calls))
        for limit in early_limits(route)
        if limit.key is client_identity
    ]


def warn_about_routes(routes: Sequence[BaseRoute]) -> None:
    """Log a line for each route that no request can reach, and for each misplaced limit."""
    for collision in route_collisions(routes):
        logger.warning(f"route collision: {collision}")
    for misplaced in misplaced_limits(routes):
        logger.warning(f"misplaced limit: {misplaced}")


def _lasting(route: ListedRoute) -> str | None:
    if route.methods == {WEBSOCKET}:
        return "websocket"
    endpoint = inspect.unwrap(route.endpoint)
    if inspect.isasyncgenfunction(endpoint) or inspect.isgeneratorfunction(endpoint):
        return "stream"
    answers = (_returned(endpoint), getattr(route.context, "response_class", None))
    return "stream" if any(getattr(one, "media_type", None) == "text/event-stream" for one in answers) else None


def _returned(endpoint: Any) -> Any:
    try:
        return get_type_hints(endpoint).get("return")
    except (NameError, TypeError):  # named for type checkers only; a class that answers
        return None


def _takes_unit(dependant: Dependant) -> bool:
    if getattr(dependant.call, "__short_unit__", False):
        return False
    return dependant.call is db_session or any(map(_takes_unit, dependant.dependencies))


def _place(endpoint: Any) -> str:
    code = getattr(inspect.unwrap(endpoint), "__code__", None)
    if code is None:
        return str(endpoint)
    path = Path(code.co_filename)
    shown = path.relative_to(PROJECT_ROOT) if path.is_relative_to(PROJECT_ROOT) else path
    return f"{shown}:{code.co_firstlineno}, {endpoint.__qualname__}"
