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
    try:
        router = register(app)
    except Exception as exc:
        raise module.fault("entrypoint", f"{module.manifest.entrypoint} raised {_said(exc)}") from exc
    if router is None:
        return  # it has mounted its routes itself
    if not isinstance(router, APIRouter):
        if inspect.iscoroutine(router):
            router.close()
        wrong = f"{module.manifest.entrypoint} gave back {type(router).__name__}"
        raise module.fault("entrypoint", f"{wrong}: it must be a plain function that returns an APIRouter or None")
    _include(app, module, router, paths)


def _include(app: FastAPI, module: ExternalModule, router: APIRouter, paths: set[str]) -> None:
    prefix = module.route_prefix
    inside = sorted(path for path in paths if path == prefix or path.startswith(f"{prefix}/"))
    if prefix and inside:
        raise module.fault("route_prefix", f'{prefix} is taken, {inside[0]} is below it; write route_prefix = "/other"')
    try:
        app.include_router(router, prefix=prefix, tags=None if router.tags else [module.name])
    except Exception as exc:
        raise module.fault("route_prefix", f"the router cannot be mounted at {prefix!r}: {_said(exc)}") from exc


def _entrypoint(module: ExternalModule) -> Callable[[FastAPI], Any]:
    place, _, name = module.manifest.entrypoint.partition(":")
    try:
        owner = importlib.import_module(place)
        found = getattr(owner, name, None)
        if isinstance(found, type):
            found = getattr(found(), "register", None)
    except Exception as exc:
        raise module.fault("entrypoint", f"{module.manifest.entrypoint} cannot be loaded: {_said(exc)}") from exc
    if not hasattr(owner, name):
        raise module.fault("entrypoint", f"{place} has no {name}{did_you_mean(name, list(vars(owner)))}")
    if not callable(found):
        raise module.fault("entrypoint", f"{place}:{name} is neither a function nor a class with a method register")
    return found  # type: ignore[no-any-return]  # calling it tells


def _said(error: Exception) -> str:
    """One line of it."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
