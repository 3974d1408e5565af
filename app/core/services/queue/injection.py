"""Resolve FastAPI's `Depends` without a request, in tasks and listeners.

taskiq has such an injection too. Not used: where one generator fails at its end, a commit say, it leaves the others
open and untold.
"""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, TypeVar

from fastapi.concurrency import contextmanager_in_threadpool, run_in_threadpool
from fastapi.params import Depends
from pydantic.fields import FieldInfo

from app.core.exceptions import ConfigError

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

_stand_ins: dict[Callable[..., Any], Callable[..., Any]] = {}


@dataclass(frozen=True)
class Dependency:
    """A callable to call once a run (each time if not `shared`), and the dependencies it asks for in turn."""

    call: Callable[..., Any]
    shared: bool
    parameters: Mapping[str, "Dependency"]


def outside_requests(dependency: Callable[..., Any]) -> Callable[[F], F]:
    """Have the decorated dependency stand in for `dependency`, which needs a request, in tasks and listeners."""

    def register(stand_in: F) -> F:
        _stand_ins[dependency] = stand_in
        return stand_in

    return register


@cache
def dependencies_of(function: Callable[..., Any]) -> Mapping[str, Dependency]:
    """Return the parameters of `function` that ask for a dependency; ConfigError if one needs a request.

    NameError while an annotation names what is not defined yet.
    """
    return {
        name: _dependency(asked, parameter, f"{path_of(function)} asks for {name!r}")
        for name, parameter in inspect.signature(function, eval_str=True).parameters.items()
        if (asked := _asked(parameter))
    }


@asynccontextmanager
async def injected(function: Callable[..., Any]) -> AsyncIterator[dict[str, Any]]:
    """Open the dependencies `function` asks for, by parameter, for the block.

    They end with it: a unit of work commits, or is rolled back where the block raises. Dependencies that are not
    `async` run in a thread, as for a route.
    """
    async with AsyncExitStack() as stack:
        made: dict[Callable[..., Any], Any] = {}
        yield {name: await _resolve(each, stack, made) for name, each in dependencies_of(function).items()}
        return
    # The block raised: to swallow that would make a success of a failure.
    raise RuntimeError(f"a dependency of {path_of(function)} swallowed the exception it was given: raise it again")


async def call_with_dependencies(function: Callable[..., Awaitable[T]], /, *args: Any, **kwargs: Any) -> T:
    """Call `function` with the given arguments and the dependencies it asks for, as `injected` opens them."""
    async with injected(function) as values:
        return await function(*args, **kwargs, **values)


def path_of(function: Callable[..., Any]) -> str:
    """Return module and name of a function or class, for messages and rows."""
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"


def _asked(parameter: inspect.Parameter) -> Depends | None:
    marks = (*getattr(parameter.annotation, "__metadata__", ()), parameter.default)
    return next((mark for mark in reversed(marks) if isinstance(mark, Depends)), None)


def _dependency(asked: Depends, parameter: inspect.Parameter, context: str) -> Dependency:
    # `Annotated[Service, Depends()]` calls the type itself.
    call = asked.dependency or getattr(parameter.annotation, "__origin__", parameter.annotation)
    call = _stand_ins.get(call, call)
    parameters: dict[str, Dependency] = {}
    for name, inner in inspect.signature(call, eval_str=True).parameters.items():
        if deeper := _asked(inner):
            parameters[name] = _dependency(deeper, inner, context)
        elif isinstance(inner.default, FieldInfo) or (
            inner.default is inner.empty and inner.kind not in (inner.VAR_POSITIONAL, inner.VAR_KEYWORD)
        ):
            raise ConfigError(f"{context}: {path_of(call)} takes {name!r} from a request, and here is none")
    return Dependency(call, asked.use_cache, parameters)


async def _resolve(dependency: Dependency, stack: AsyncExitStack, made: dict[Callable[..., Any], Any]) -> Any:
    if dependency.shared and dependency.call in made:
        return made[dependency.call]
    values = {name: await _resolve(each, stack, made) for name, each in dependency.parameters.items()}
    value = await _open(partial(dependency.call, **values), stack)
    made.setdefault(dependency.call, value)
    return value


async def _open(call: "partial[Any]", stack: AsyncExitStack) -> Any:
    plain = inspect.isroutine(call.func) or inspect.isclass(call.func)
    function = call.func if plain else type(call.func).__call__  # an object that can be called
    if inspect.isasyncgenfunction(function):
        return await stack.enter_async_context(asynccontextmanager(call)())
    if inspect.isgeneratorfunction(function):
        return await stack.enter_async_context(contextmanager_in_threadpool(contextmanager(call)()))
    if inspect.iscoroutinefunction(function):
        return await call()
    return await run_in_threadpool(call)
