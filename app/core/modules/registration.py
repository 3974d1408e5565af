"""Calls `register(app)` of modules that join the application themselves; it returns a router or nothing."""

import importlib
import inspect
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.routing import iter_route_contexts

from app.core.exceptions import ConfigError
from app.core.modules.external import ExternalModule
from app.core.modules.manifest import did_you_mean
from app.core.modules.module import Module


def register_modules(app: FastAPI, modules: Iterable[Module], api_prefix: str = "") -> None:
    """Have every module that can register itself, external ones last; ConfigError where one cannot.

    A router of an internal module goes below `api_prefix`. Routes that are there already win wherever two fit.
    """
    for module in sorted(modules, key=lambda module: module.external):
        if isinstance(module, ExternalModule):
            paths = {context.path_format or "" for context in iter_route_contexts(app.routes)}
            place, fault = module.manifest.entrypoint, partial(module.fault, "entrypoint")
            if router := _registered(app, module, _entrypoint(module), place, fault):
                _include(app, module, router, paths)
        elif register := _register_of(module):
            place = f"{register.__module__}:register"
            if router := _registered(app, module, register, place, ConfigError):
                app.include_router(router, prefix=api_prefix, tags=None if router.tags else [module.short_name])


def _register_of(module: Module) -> Callable[[FastAPI], Any] | None:
    """`register` in the module's `routers.py` or, without one there, in its root."""
    for part in (module.part("routers"), module.root):
        if (found := getattr(part, "register", None)) is not None:
            if inspect.isroutine(found):
                return found
            raise ConfigError(f"{module.name}: register must be a function that takes the application")
    return None


def _registered(
    app: FastAPI,
    module: Module,
    register: Callable[[FastAPI], Any],
    place: str,
    fault: Callable[[str], ConfigError],
) -> APIRouter | None:
    before = _Service(app)
    try:
        router = register(app)
    except (Exception, SystemExit) as exc:
        raise fault(f"{place} raised {_said(exc)}") from exc
    if changed := before.changed(module):
        what = f"{place} changes {', '.join(changed)} of the whole service"
        raise fault(f"{what}: leave that to the service, or mount an application of your own")
    if router is None or isinstance(router, APIRouter):
        return router  # None: it has mounted its routes itself
    if inspect.iscoroutine(router):
        router.close()
    wrong = f"{place} gave back {type(router).__name__}"
    raise fault(f"{wrong}: it must be a plain function that returns an APIRouter or None")


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
            and all(f"{getattr(error, '__module__', '')}.".startswith(f"{module.name}.") for error in added),
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
