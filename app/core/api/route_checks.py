"""Checks of the routes: those no request can reach, units of work that last too long, limits that come too early."""

import inspect
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_type_hints

from fastapi.dependencies.models import Dependant
from starlette.routing import BaseRoute

from app.core.api.limiter import ConfigurableRateLimiter, early_limits
from app.core.api.routes import ANY_METHOD, WEBSOCKET, ListedRoute, all_routes, listed_routes, mounted_routes
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

_STRANGE = "\N{SNOWMAN}"
"""Text that no path spells out: only a parameter takes it."""

# Two samples of each kind: a path that happens to spell one out does not match the other, so it shadows nothing.
_VALUES = (
    "",
    _STRANGE,
    f"{_STRANGE}/{_STRANGE}",
    "17",
    "40",
    "1.5",
    "2.25",
    "6f1c0b52-93a5-4d2e-8c5b-1f0e7ad4c913",
    "0d3b6a1e8f2c4b7d9ae1c5f70b2d4c68",
)


@dataclass(frozen=True)
class Collision:
    """`hidden` is never asked with `methods`: `first` takes these requests."""

    kind: Literal["duplicate", "shadowed"]
    methods: tuple[str, ...]
    hidden: ListedRoute
    first: ListedRoute

    @property
    def fix(self) -> str:
        """The change that removes the collision."""
        if self.kind == "duplicate":
            same = self.hidden.endpoint is self.first.endpoint
            return "include it once" if same else "remove one of them, or give it another path or method"
        if self.first.is_mount:
            return f"include it before the mount of {self.first.path}, or give it another path"
        return "register it before the other, or narrow the other with a converter such as {id:int}"

    def __str__(self) -> str:
        methods = "/".join(self.methods)
        return (
            f"{methods} {self.hidden.path} ({self.hidden.name}) is never reached: "
            f"{self.first.path} ({self.first.name}) comes first and takes its requests; {self.fix}"
        )


@dataclass(frozen=True)
class MisplacedLimit:
    """A limit that is meant for callers and comes before the dependency that tells who calls."""

    route: ListedRoute
    limit: ConfigurableRateLimiter
    fix = "put the dependency that identifies the caller before it, or give it key=client_address"

    def __str__(self) -> str:
        route = f"{self.route.path} ({self.route.name})"
        return f"{route}: the limit of {self.limit} counts addresses instead of callers; {self.fix}"


def check_units(routes: Sequence[BaseRoute]) -> None:
    """Raise ConfigError with a line for each websocket and each event or item stream that takes DBSession."""
    faults = [
        f"{route.path} ({place_of(route.endpoint)}) is a {kind}: {_WHY[kind]}; {_FIX}"
        for route in all_routes(listed_routes(routes))
        if (kind := _lasting(route)) and route.dependant and _takes_unit(route.dependant)
    ]
    if faults:
        raise ConfigError("\n".join(faults))


def warn_about_routes(routes: Sequence[BaseRoute]) -> None:
    """Log a line for each route that no request can reach, and for each misplaced limit."""
    for collision in route_collisions(routes):
        logger.warning(f"route collision: {collision}")
    for misplaced in misplaced_limits(routes):
        logger.warning(f"misplaced limit: {misplaced}")


def misplaced_limits(routes: Sequence[BaseRoute]) -> list[MisplacedLimit]:
    """Return the limits of routes that know their caller only afterwards."""
    return [
        MisplacedLimit(route, limit)
        for route in listed_routes(routes)
        if any(map(is_identifying, route.calls))
        for limit in early_limits(route)
        if limit.identifier is client_identity
    ]


def route_collisions(routes: Sequence[BaseRoute]) -> list[Collision]:
    """Return every route hidden by an earlier one, for all or some of its methods; those of mounted applications too.

    What is hidden only in part, as `/{name}/list` behind `/users/{id}`, can still be reached and is not listed.
    """
    return list(_collisions(list(listed_routes(routes))))


def _collisions(listed: Sequence[ListedRoute]) -> Iterator[Collision]:
    for position, route in enumerate(listed):
        yield from _hidden(route, listed[:position])
        if route.is_mount:
            yield from _collisions(list(mounted_routes(route)))


def _hidden(route: ListedRoute, earlier: Iterable[ListedRoute]) -> Iterator[Collision]:
    left, examples = set(route.methods), _examples(route)
    for first in earlier:
        taken = left & first.methods | (left - {WEBSOCKET} if ANY_METHOD in first.methods else set())
        same = _shape(first) == _shape(route)
        if taken and (same or all(map(first.pattern.match, examples))):
            left = left - taken
            yield Collision("duplicate" if same else "shadowed", tuple(sorted(taken)), route, first)


def _examples(route: ListedRoute) -> list[str]:
    """Paths of the route, in which each of its parameters takes every value of its kind."""
    # A convertor of the application's own may match no sample: then only a route that takes any text covers it.
    values = {
        name: [value for value in _VALUES if re.fullmatch(convertor.regex, value)] or [_STRANGE]
        for name, convertor in route.context.param_convertors.items()
    }
    examples = [route.context.path_format or ""] * len(_VALUES)
    for name, taken in values.items():  # not str.format: other braces stand for themselves
        examples = [path.replace(f"{{{name}}}", taken[turn % len(taken)]) for turn, path in enumerate(examples)]
    return examples


def _shape(route: ListedRoute) -> str:
    """The pattern without the names of its parameters."""
    return re.sub(r"\(\?P<\w+>", "(", route.pattern.pattern)


def _lasting(route: ListedRoute) -> Literal["websocket", "stream"] | None:
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


def place_of(endpoint: Any) -> str:
    """Return file, line and name of a function that answers."""
    code = getattr(inspect.unwrap(endpoint), "__code__", None)
    if code is None:
        return str(endpoint)
    path = Path(code.co_filename)
    shown = path.relative_to(PROJECT_ROOT) if path.is_relative_to(PROJECT_ROOT) else path
    return f"{shown}:{code.co_firstlineno}, {endpoint.__qualname__}"
