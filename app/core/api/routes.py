"""Which routes an application has, and which of them a request took.

FastAPI keeps included routers as objects: a route's own path lacks the prefix it was included under.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from re import Pattern
from typing import Any
from weakref import WeakKeyDictionary

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


def all_routes(routes: Iterable[ListedRoute]) -> Iterator[ListedRoute]:
    """The routes, and after each mount those of its application."""
    for route in routes:
        yield route
        if route.is_mount:
            yield from all_routes(mounted_routes(route))


def allowed_methods(app: FastAPI, scope: Scope) -> list[str]:
    """The methods that some route has for the path of this request; where it can be read, HEAD is one."""
    contexts = [context for context in iter_route_contexts(app.routes) if context.methods]
    methods = {method for context in contexts if _fits(context, scope) for method in context.methods or ()}
    return sorted(methods | {"HEAD"} if "GET" in methods else methods)


class RouteTemplates:
    """The path template of the route a request took: `/api/v1/users/{user_id}`."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._contexts: dict[Any, list[RouteContext]] = {}

    def of(self, scope: Scope) -> str | None:
        """The template, or None where no route fits the path."""
        if scope.get("endpoint") is None:
            return None
        if context := self.context(scope):
            return context.path_format
        mounts = (route for route in listed_routes(self._app.routes) if route.is_mount)
        return _mounted_template(mounts, _path(scope))

    def context(self, scope: Scope) -> RouteContext | None:
        """The route that a request took, or the one it is going to take, or None."""
        endpoint = scope.get("endpoint")
        if endpoint is None:
            contexts = [context for context in iter_route_contexts(self._app.routes) if _takes(context, scope)]
        else:
            if endpoint not in self._contexts:
                self._read(endpoint)
            contexts = self._contexts[endpoint]
        if len(contexts) > 1:
            contexts = [context for context in contexts if _fits(context, scope)]
        return contexts[0] if contexts else None

    def answers_head(self, scope: Scope) -> bool:
        """Whether a route takes HEAD itself."""
        contexts = iter_route_contexts(self._app.routes)
        return any("HEAD" in (context.methods or ()) and _fits(context, scope) for context in contexts)

    def _read(self, missing: Any) -> None:
        contexts: dict[Any, list[RouteContext]] = defaultdict(list)
        for context in iter_route_contexts(self._app.routes):
            contexts[context.endpoint].append(context)
        contexts.setdefault(missing, [])
        self._contexts = {**self._contexts, **contexts}


def _mounted_template(routes: Iterable[ListedRoute], path: str) -> str | None:
    """The template below the first mount that takes `path`, and below the mounts in that."""
    for route in routes:
        if not (match := route.pattern.match(path)):
            continue
        if not route.is_mount:
            return route.path
        return _mounted_template(mounted_routes(route), f"/{match['path']}") or f"{route.path.rstrip('/')}/{{path}}"
    return None


def _fits(context: RouteContext, scope: Scope) -> bool:
    return bool(context.path_regex.match(_path(scope)))


def _takes(context: RouteContext, scope: Scope) -> bool:
    return scope.get("method") in (context.methods or ()) and _fits(context, scope)


def _path(scope: Scope) -> str:
    """The path below the one at which the service stands; a mount adds its own to that."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("app_root_path", scope.get("root_path", "")))


_tables: WeakKeyDictionary[FastAPI, RouteTemplates] = WeakKeyDictionary()


def route_of(scope: Scope) -> RouteContext | None:
    """The route of a request, with what the routers around it add: dependencies and limits."""
    app = scope.get("app")
    if app is None:
        return None
    if app not in _tables:
        _tables[app] = RouteTemplates(app)
    return _tables[app].context(scope)
