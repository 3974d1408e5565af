"""Which routes an application has, and which of them a request took.

FastAPI keeps included routers as objects: a route's own path lacks the prefix it was included under.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from re import Pattern
from typing import Any

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import RouteContext, iter_route_contexts
from starlette.convertors import Convertor
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.types import Scope

ANY_METHOD = "*"
WEBSOCKET = "WEBSOCKET"


@dataclass(frozen=True)
class ListedRoute:
    """A path operation, a websocket or a mounted application, with every prefix it was included under.

    `methods` may hold `*`, for every method of HTTP, and `WEBSOCKET`.
    """

    path: str
    methods: frozenset[str]
    context: RouteContext

    @property
    def endpoint(self) -> Any:
        """What answers: a function, a class or an application."""
        return self.context.app if self.is_mount else self.context.endpoint

    @property
    def name(self) -> str:
        """Where the endpoint is defined, `module:function`."""
        endpoint = self.endpoint
        named = endpoint if hasattr(endpoint, "__qualname__") else type(endpoint)
        return f"{named.__module__}:{named.__qualname__}"

    @property
    def is_mount(self) -> bool:
        """Whether it hands everything below its path to another application."""
        return isinstance(self.context.original_route, Mount)

    @property
    def pattern(self) -> Pattern[str]:
        """What paths must match, without the prefix of a mount around it."""
        pattern: Pattern[str] = self.context.path_regex
        return pattern

    @property
    def convertors(self) -> Mapping[str, Convertor[Any]]:
        """The kind of each parameter of the path."""
        convertors: Mapping[str, Convertor[Any]] = self.context.param_convertors
        return convertors

    @property
    def dependant(self) -> Dependant | None:
        """What FastAPI resolves for it, where FastAPI serves it."""
        return getattr(self.context, "dependant", None)


def listed_routes(routes: Sequence[BaseRoute], prefix: str = "") -> Iterator[ListedRoute]:
    """The routes in the order in which a request tries them; of a mount itself alone."""
    for context in iter_route_contexts(routes):
        if isinstance(context.original_route, Mount):
            yield ListedRoute(f"{prefix}{context.path}" or "/", frozenset({ANY_METHOD, WEBSOCKET}), context)
        elif isinstance(context.original_route, WebSocketRoute):
            yield ListedRoute(f"{prefix}{context.path}", frozenset({WEBSOCKET}), context)
        elif isinstance(context.original_route, Route):
            methods = frozenset(context.methods or {ANY_METHOD})
            yield ListedRoute(f"{prefix}{context.path}", methods, context)


def mounted_routes(mount: ListedRoute) -> Iterator[ListedRoute]:
    """The routes of a mounted application, where it tells them."""
    yield from listed_routes(mount.context.routes or [], prefix=mount.path.rstrip("/"))


def allowed_methods(app: FastAPI, scope: Scope) -> list[str]:
    """The methods that some route has for the path of this request."""
    contexts = [context for context in iter_route_contexts(app.routes) if context.methods]
    return sorted({method for context in contexts if _fits(context, scope) for method in context.methods or ()})


class RouteTemplates:
    """The path template of the route a request took: `/api/v1/users/{user_id}`."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._contexts: dict[Any, list[RouteContext]] = {}

    def of(self, scope: Scope) -> str | None:
        """The template, or None where no route fits the path."""
        endpoint = scope.get("endpoint")
        if endpoint is None:
            return None
        if endpoint not in self._contexts:
            self._read(endpoint)
        contexts = self._contexts[endpoint]
        if len(contexts) > 1:
            contexts = [context for context in contexts if _fits(context, scope)]
        if contexts:
            return contexts[0].path_format
        return getattr(scope.get("route"), "path", None)  # of a mounted application

    def _read(self, missing: Any) -> None:
        contexts: dict[Any, list[RouteContext]] = defaultdict(list)
        for context in iter_route_contexts(self._app.routes):
            contexts[context.endpoint].append(context)
        contexts.setdefault(missing, [])
        self._contexts = {**self._contexts, **contexts}


def _fits(context: RouteContext, scope: Scope) -> bool:
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    return bool(context.path_regex.match(path))
