"""How installed packages join the application: each is called once with it, and gives back a router or nothing."""

import importlib
import inspect
from collections.abc import Callable, Iterable
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.routing import iter_route_contexts

from app.core.modules.external import ExternalModule
from app.core.modules.manifest import did_you_mean
from app.core.modules.module import Module


def register_packages(app: FastAPI, modules: Iterable[Module]) -> None:
    """Have every external module register itself, in this order; ConfigError where one cannot.

    They come after the routes of the service, which win wherever two fit.
    """
    for module in modules:
        if isinstance(module, ExternalModule):
            _register(app, module)


def _register(app: FastAPI, module: ExternalModule) -> None:
    register = _entrypoint(module)
    paths = {context.path_format or "" for context in iter_route_contexts(app.routes)}
    before = _Service(app)
    try:
        router = register(app)
    except (Exception, SystemExit) as exc:
        raise module.fault("entrypoint", f"{module.manifest.entrypoint} raised {_said(exc)}") from exc
    if changed := before.changed(module):
        what = f"{module.manifest.entrypoint} changes {', '.join(changed)} of the whole service"
        raise module.fault("entrypoint", f"{what}: leave that to the service, or mount an application of your own")
    if router is None:
        return  # it has mounted its routes itself
    if not isinstance(router, APIRouter):
        if inspect.iscoroutine(router):
            router.close()
        wrong = f"{module.manifest.entrypoint} gave back {type(router).__name__}"
        raise module.fault("entrypoint", f"{wrong}: it must be a plain function that returns an APIRouter or None")
    _include(app, module, router, paths)


class _Service:
    """What of an application is not a package's to change, as it was before its `register`."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._middleware = list(app.user_middleware)
        self._handlers = dict(app.exception_handlers)
        self._overrides = dict(app.dependency_overrides)
        self._routes = list(app.router.routes)
        self._state = dict(app.state._state)

    def changed(self, module: Module) -> list[str]:
        """What is not as it was. More routes, more state and handlers of the package's own errors are welcome."""
        app, handlers = self._app, self._app.exception_handlers
        added = [error for error in handlers if error not in self._handlers]
        same = {
            "the middleware": app.user_middleware == self._middleware,
            "the exception handlers": handlers.items() >= self._handlers.items()
            and all(getattr(error, "__module__", "").partition(".")[0] == module.name for error in added),
            "the dependency overrides": app.dependency_overrides == self._overrides,
            "the routes": app.router.routes[: len(self._routes)] == self._routes,
            "the state": all(app.state._state.get(name) is value for name, value in self._state.items()),
        }
        return [name for name, kept in same.items() if not kept]


def _include(app: FastAPI, module: ExternalModule, router: APIRouter, paths: set[str]) -> None:
    prefix = module.route_prefix
    inside = sorted(path for path in paths if path == prefix or path.startswith(f"{prefix}/"))
    if prefix and inside:
        raise module.fault("route_prefix", f'{prefix} is taken, {inside[0]} is below it; write route_prefix = "/other"')
    try:
        app.include_router(router, prefix=prefix, tags=None if router.tags else [module.name])
    except (Exception, SystemExit) as exc:
        raise module.fault("route_prefix", f"the router cannot be mounted at {prefix!r}: {_said(exc)}") from exc


def _entrypoint(module: ExternalModule) -> Callable[[FastAPI], Any]:
    place, _, name = module.manifest.entrypoint.partition(":")
    try:
        owner = importlib.import_module(place)
        found = getattr(owner, name, None)
        if isinstance(found, type):
            found = getattr(found(), "register", None)
    except (Exception, SystemExit) as exc:
        raise module.fault("entrypoint", f"{module.manifest.entrypoint} cannot be loaded: {_said(exc)}") from exc
    if not hasattr(owner, name):
        raise module.fault("entrypoint", f"{place} has no {name}{did_you_mean(name, list(vars(owner)))}")
    if not callable(found):
        raise module.fault("entrypoint", f"{place}:{name} is neither a function nor a class with a method register")
    return found  # type: ignore[no-any-return]  # calling it tells


def _said(error: BaseException) -> str:
    """One line of it."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
