"""What modules open and close together with the application."""

import inspect
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

from fastapi import FastAPI

from app.core.exceptions import ConfigError
from app.core.modules.module import Module

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[Any]]


class ModuleNotStarted(RuntimeError):
    """The lifespan of a module failed; its error is the `__cause__`."""


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
    """`lifespan` in the module's `lifespan.py` or, without that file, in its root."""
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
