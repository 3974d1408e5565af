"""Let modules join the application: `register(app)` of those that have one, and their lifespans."""

import importlib
import inspect
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.routing import iter_route_contexts

from app.core.exceptions import ConfigError
from app.core.modules.manifest import did_you_mean
from app.core.modules.module import ExternalModule, Module

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[Any]]


class ModuleNotStarted(RuntimeError):
    """The lifespan of a module failed; its error is the `__cause__`."""


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
    """Return `register` of the module's `routers.py` or, without one there, of its root."""
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
    before = _fixed_parts(app, module)
    try:
        router = register(app)
    except (Exception, SystemExit) as exc:
        raise fault(f"{place} raised {_said(exc)}") from exc
    after = _fixed_parts(app, module)
    after["the routes"] = after["the routes"][: len(before["the routes"])]
    after["the state"] = {name: after["the state"].get(name) for name in before["the state"]}
    if changed := [name for name in before if after[name] != before[name]]:
        what = f"{place} changes {', '.join(changed)} of the whole service"
        raise fault(f"{what}: leave that to the service, or mount an application of your own")
    if router is None or isinstance(router, APIRouter):
        return router  # None: it has mounted its routes itself
    if inspect.iscoroutine(router):
        router.close()
    raise fault(
        f"{place} gave back {type(router).__name__}: it must be a plain function that returns an APIRouter or None"
    )


def _fixed_parts(app: FastAPI, module: Module) -> dict[str, Any]:
    """The parts of the application that `register` must leave as they are.

    It may add routes, state, and handlers of its own errors.
    """
    own = f"{module.name}."
    handlers = app.exception_handlers.items()
    return {
        "the middleware": list(app.user_middleware),
        "the exception handlers": {
            error: handler for error, handler in handlers if not f"{getattr(error, '__module__', '')}.".startswith(own)
        },
        "the dependency overrides": dict(app.dependency_overrides),
        "the routes": list(app.router.routes),
        "the state": dict(app.state._state),
    }


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
    """Format an error as one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


@asynccontextmanager
async def module_lifespans(app: FastAPI, modules: Iterable[Module]) -> AsyncIterator[None]:
    """Enter the lifespan of every internal module that has one, in this order; leave them in the reverse order."""
    async with AsyncExitStack() as stack:
        for module in modules:
            if lifespan := lifespan_of(module):
                try:
                    await stack.enter_async_context(lifespan(app))
                except Exception as exc:
                    raise ModuleNotStarted(f"{module.name} did not start: {type(exc).__name__}: {exc}") from exc
        yield


def lifespan_of(module: Module) -> Lifespan | None:
    """Return `lifespan` of the module's `lifespan.py` or, without that file, of its root."""
    if module.external:
        return None
    part = module.part("lifespan")
    found = getattr(part or module.root, "lifespan", None)
    if part is None and found is None:
        return None
    if not callable(found) or inspect.isasyncgenfunction(found) or inspect.iscoroutinefunction(found):
        place = f"{module.name}.lifespan" if part else module.name
        raise ConfigError(f"{place}: lifespan must be an @asynccontextmanager that takes the application")
    return found  # type: ignore[no-any-return]  # by convention; what it yields nobody uses
