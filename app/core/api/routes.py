"""The routes of an application, and the one a request took.

FastAPI keeps included routers as objects: a route's own path lacks the prefix it was included under.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from re import Pattern
from typing import Any

from fastapi.dependencies.models import Dependant
from fastapi.routing import RouteContext, iter_route_contexts
from pydantic import TypeAdapter
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticSchemaGenerationError
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.types import Scope

from app.core.identity import AUTHENTICATED, PUBLIC, access_of

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
        """The function, class or application that answers."""
        return self.context.app if self.is_mount else self.context.endpoint

    @property
    def name(self) -> str:
        """The place where the endpoint is defined, `module:function`."""
        endpoint = self.endpoint
        named = endpoint if hasattr(endpoint, "__qualname__") else type(endpoint)
        return f"{named.__module__}:{named.__qualname__}"

    @property
    def is_mount(self) -> bool:
        """True where another application answers everything below its path."""
        return isinstance(self.context.original_route, Mount)

    @property
    def pattern(self) -> Pattern[str]:
        """The pattern of its paths, without the prefix of a mount around it."""
        pattern: Pattern[str] = self.context.path_regex
        return pattern

    @property
    def dependant(self) -> Dependant | None:
        """The dependencies that FastAPI resolves for it; None where another application answers."""
        return getattr(self.context, "dependant", None)

    @property
    def max_body_size(self) -> int | None:
        """The limit of a body in bytes, where the route or a router around it has one."""
        return getattr(self.context, "max_body_size", None)

    @cached_property
    def calls(self) -> tuple[Any, ...]:
        """The dependencies, in the order in which they are called."""
        return tuple(_calls(self.dependant)) if self.dependant else ()

    @cached_property
    def access(self) -> tuple[str, ...]:
        """Permissions and roles its dependencies ask for, else `authenticated` or `public`; () where none says."""
        found = {name for call in self.calls for name in access_of(call)}
        if self.dependant:
            found.update(_scopes(self.dependant))
        return tuple(sorted(found - {AUTHENTICATED, PUBLIC}) or sorted(found)[:1])

    @cached_property
    def field_names(self) -> frozenset[str]:
        """The names of all fields that it declares: an error shows these, and no text of the caller's."""
        if self.dependant is None:
            return frozenset()
        documented = _names_in(getattr(self.context, "openapi_extra", None))  # fields the operation reads for itself
        return frozenset((*_declared(self.dependant), *documented))

    def fits(self, scope: Scope) -> bool:
        """Return whether the path of a request is one of its paths."""
        return bool(self.pattern.match(_path(scope)))


def listed_routes(routes: Sequence[BaseRoute], prefix: str = "") -> Iterator[ListedRoute]:
    """The routes in the order in which a request tries them; of a mount itself alone."""
    for context in iter_route_contexts(routes):
        path = f"{prefix}{context.path_format or context.path}"
        if isinstance(context.original_route, Mount):
            yield ListedRoute(f"{prefix}{context.path}" or "/", frozenset({ANY_METHOD, WEBSOCKET}), context)
        elif isinstance(context.original_route, WebSocketRoute):
            yield ListedRoute(path, frozenset({WEBSOCKET}), context)
        elif isinstance(context.original_route, Route):
            yield ListedRoute(path, frozenset(context.methods or {ANY_METHOD}), context)


def mounted_routes(mount: ListedRoute) -> Iterator[ListedRoute]:
    """The routes of a mounted application, where it tells them."""
    yield from listed_routes(mount.context.routes or [], prefix=mount.path.rstrip("/"))


def all_routes(routes: Iterable[ListedRoute]) -> Iterator[ListedRoute]:
    """The routes, and after each mount those of its application."""
    for route in routes:
        yield route
        if route.is_mount:
            yield from all_routes(mounted_routes(route))


def allowed_methods(app: Starlette, scope: Scope) -> list[str]:
    """The methods that some route has for the path of this request; where it can be read, HEAD is one."""
    fitting = (route.methods for route in listed_routes(app.routes) if route.fits(scope))
    methods = set[str]().union(*fitting) - {ANY_METHOD, WEBSOCKET}
    return sorted(methods | {"HEAD"} if "GET" in methods else methods)


class RouteTable:
    """Finds the route of a request among those of an application."""

    def __init__(self, app: Starlette) -> None:
        self._app = app
        self._by_endpoint: dict[int, tuple[Any, list[ListedRoute]]] = {}  # by identity: not every one can be hashed

    def find(self, scope: Scope) -> ListedRoute | None:
        """Return the route that a request took, or is going to take."""
        endpoint = scope.get("endpoint")
        if endpoint is None:
            method = scope.get("method", WEBSOCKET)
            return next((route for route in self._listed() if method in route.methods and route.fits(scope)), None)
        if id(endpoint) not in self._by_endpoint:  # routes were added, or it is one of a mounted application
            known: dict[int, tuple[Any, list[ListedRoute]]] = {id(endpoint): (endpoint, [])}
            for route in self._listed():
                known.setdefault(id(route.endpoint), (route.endpoint, []))[1].append(route)
            self._by_endpoint = {**self._by_endpoint, **known}
        _, routes = self._by_endpoint[id(endpoint)]
        if len(routes) > 1:
            return next((route for route in routes if route.fits(scope)), None)
        return routes[0] if routes else None

    def template(self, scope: Scope) -> str | None:
        """Return the path template of the route a request took, `/api/v1/users/{user_id}`; None where no route fits."""
        if scope.get("endpoint") is None:
            return None
        route = self.find(scope)
        if route and not route.is_mount:
            return route.context.path_format
        return _mounted_template((route for route in self._listed() if route.is_mount), _path(scope))

    def answers_head(self, scope: Scope) -> bool:
        """Return whether a route takes HEAD itself."""
        return any("HEAD" in route.methods and route.fits(scope) for route in self._listed())

    def _listed(self) -> Iterator[ListedRoute]:
        return listed_routes(self._app.routes)


def route_table(app: Starlette) -> RouteTable:
    """The table of an application, which is kept with it."""
    table: RouteTable | None = getattr(app.state, "route_table", None)
    if table is None:
        table = app.state.route_table = RouteTable(app)
    return table


def route_of(scope: Scope) -> ListedRoute | None:
    """The route of a request, with what the routers around it add: dependencies and limits."""
    app = scope.get("app")  # of a mounted application, that one
    return route_table(app).find(scope) if isinstance(app, Starlette) else None


def _mounted_template(routes: Iterable[ListedRoute], path: str) -> str | None:
    """The template below the first mount that takes `path`, and below the mounts in that."""
    for route in routes:
        if not (match := route.pattern.match(path)):
            continue
        if not route.is_mount:
            return route.path
        return _mounted_template(mounted_routes(route), f"/{match['path']}") or f"{route.path.rstrip('/')}/{{path}}"
    return None


def _path(scope: Scope) -> str:
    """The path below the one at which the service stands; a mount adds its own to that."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("app_root_path", scope.get("root_path", "")))


def _calls(dependant: Dependant) -> Iterator[Any]:
    for dependency in dependant.dependencies:
        yield from _calls(dependency)
        yield dependency.call


def _scopes(dependant: Dependant) -> Iterator[str]:
    """The scopes of `Security(..., scopes=)` whose dependency reads them."""
    for dependency in dependant.dependencies:
        if dependency.own_oauth_scopes and _reads_scopes(dependency):
            yield from dependency.own_oauth_scopes
        yield from _scopes(dependency)


def _reads_scopes(dependant: Dependant) -> bool:
    return bool(dependant.security_scopes_param_name) or any(map(_reads_scopes, dependant.dependencies))


def _declared(dependant: Dependant) -> Iterator[str]:
    parameters = (dependant.path_params, dependant.query_params, dependant.header_params, dependant.cookie_params)
    for field in chain(*parameters, dependant.body_params):
        yield field.alias
        annotation: Any = field.field_info.annotation
        with suppress(PydanticInvalidForJsonSchema, PydanticSchemaGenerationError):  # a type without fields
            yield from _names_in(TypeAdapter(annotation).json_schema())
    for dependency in dependant.dependencies:
        yield from _declared(dependency)


def _names_in(schema: Any) -> Iterator[str]:
    """The names of fields, of models, and of the alternatives of a union."""
    if isinstance(schema, Mapping):
        for key, value in schema.items():
            if key in ("properties", "$defs", "mapping"):
                yield from value
            yield from _names_in(value)
    elif isinstance(schema, Sequence) and not isinstance(schema, str):
        for value in schema:
            yield from _names_in(value)
