"""Which routes an application has, and which of them a request took.

FastAPI keeps included routers as objects: a route's own path lacks the prefix it was included under.
"""

from collections import defaultdict
from typing import Any

from fastapi import FastAPI
from fastapi.routing import RouteContext, iter_route_contexts
from starlette.types import Scope


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
