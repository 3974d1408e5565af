"""`@cached` caches what a path operation or a function returns; `invalidates` deletes it when an event happens."""

import dataclasses
import functools
import hashlib
import inspect
import math
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Any, ParamSpec, TypeVar, cast

from fastapi import Response
from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError, to_json
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session

from app.core.exceptions import UnavailableError
from app.core.identity import private_to
from app.core.services.cache.interface import (
    OF_CALLER,
    CacheServiceInterface,
    NotKept,
    caller_tag,
    calling_module,
    current_cache,
    namespace_of,
)
from app.core.services.cache.results import MASKED, PARAMETER, CachedRequest, Codec, with_request
from app.core.services.events.interface import BaseEvent, EventsServiceInterface, Handler, ListenedEvent, listener
from app.core.services.mail.interface import MailServiceInterface
from app.core.services.queue.interface import QueueServiceInterface
from app.core.services.secret_types import is_secret

E = TypeVar("E", bound=BaseEvent)
P = ParamSpec("P")
R = TypeVar("R")

KeyBuilder = Callable[..., str]

Tags = Iterable[str] | Callable[..., Iterable[str]]
"""Tags, or a function that makes them from those arguments of the cached function that it names."""

Names = Iterable[str] | Callable[[E], Iterable[str]]
"""Names, or a function that makes them from the event."""

# Arguments of these types are no part of a key: they do not change a result.
_TOOLS = (
    AsyncSession,
    async_scoped_session,
    CacheServiceInterface,
    EventsServiceInterface,
    MailServiceInterface,
    QueueServiceInterface,
    Response,
)


def cached(
    *,
    ttl: float | None,
    key_builder: KeyBuilder | None = None,
    prefix: str | None = None,
    tags: Tags = (),
    private: bool = True,
) -> Callable[[Callable[P, Awaitable[R]]], Callable[P, Awaitable[R]]]:
    """Cache the result of a coroutine function for `ttl` seconds; concurrent callers share one call.

    The key is what `key_builder(function, *args, **kwargs)` returns, or the function and all its arguments, of which
    each must be a plain value: a key without it could show one caller's result to another. Sessions, services and,
    on a path operation, dependencies that read nothing of the request are left out. `prefix` goes before the one and
    replaces the function's name in the other. On a path operation each verified caller has an entry, unless
    `private=False`, and the response has `ETag` and `Cache-Control`; only GET and HEAD are cached. docs/cache.md
    says more.
    """
    if isinstance(tags, str):
        raise TypeError("@cached takes a list of tags, not one text")
    if ttl is not None and not math.isfinite(ttl):
        raise ValueError(f"@cached takes a number of seconds, or None for no end of its own, not {ttl}")

    def decorate(function: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
        if not inspect.iscoroutinefunction(function):
            raise TypeError(f"@cached takes an `async def`, not {function!r}")
        codec = Codec(function)
        signature = inspect.signature(function)
        namespace = namespace_of(function.__module__)
        start = f"{prefix or _name(function)}:"
        named = inspect.signature(tags).parameters if callable(tags) else {}
        takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in named.values())
        if not takes_all and (unknown := named.keys() - signature.parameters.keys()):
            raise TypeError(f"@cached: {_name(function)} has no argument {', '.join(sorted(unknown))} to make tags of")

        def bound(*args: P.args, **kwargs: P.kwargs) -> dict[str, Any]:
            arguments = signature.bind(*args, **kwargs)
            arguments.apply_defaults()
            return arguments.arguments

        def key_of(constants: Collection[str], *args: P.args, **kwargs: P.kwargs) -> str:
            if key_builder is None:
                return start + _digest(function, bound(*args, **kwargs), constants)
            built = key_builder(function, *args, **kwargs)
            return start + built if prefix else built

        def tags_of(*args: P.args, **kwargs: P.kwargs) -> list[str]:
            if not callable(tags):
                return list(tags)
            arguments = bound(*args, **kwargs)
            return list(tags(**{name: value for name, value in arguments.items() if takes_all or name in named}))

        @functools.wraps(function)
        async def remember(*args: P.args, **kwargs: P.kwargs) -> R:
            request = cast(CachedRequest | None, kwargs.pop(PARAMETER, None))
            operation = request if request and request.is_answered_by(remember) else None
            call = functools.partial(function, *args, **kwargs)
            if operation and not operation.is_safe:
                return await call()
            key = key_of(operation.traits.constants if operation else (), *args, **kwargs)
            if OF_CALLER in key:
                return await call()  # with the separator in it, a key could be that of another caller's entry
            entry_tags = tags_of(*args, **kwargs)
            if request and private and (caller := private_to(request.request)):
                entry_tags.append(caller_tag(key))
                key += OF_CALLER + caller
            computed = False

            async def compute() -> Any:
                nonlocal computed
                computed = True
                return await operation.compute(call, codec, ttl) if operation else codec.dump(await call())

            def load(stored: Any) -> R:
                return cast(R, operation.load(stored, codec, replay=not computed) if operation else codec.load(stored))

            cache = current_cache().namespace(namespace)
            for _ in range(2):
                stored = await cache.get_or_set(key, compute, ttl=ttl, tags=entry_tags)
                try:
                    return load(stored)
                except ValidationError:  # stored by another version of the code, or by something else
                    if computed:
                        raise
                    await cache.delete(key)
            fresh = await compute()  # another process goes on storing such values
            return load(fresh.value if isinstance(fresh, NotKept) else fresh)

        remember.__signature__ = with_request(signature)  # type: ignore[attr-defined]  # what FastAPI looks at
        return remember

    return decorate


def invalidates(
    event: type[E], *, tags: Names[E] = (), keys: Names[E] = (), patterns: Names[E] = (), durable: bool = True
) -> Handler:
    """Delete these entries of the calling module's cache once `event` is committed.

        invalidates(UserUpdated, tags=lambda event: [f"user:{event.user_id}"])

    Belongs in `listeners.py`, once per event. Durable: a job, retried until the cache can be reached.
    """
    module = calling_module()

    async def forget(heard: ListenedEvent[Any]) -> None:
        """Delete what the event has made outdated."""

        def names(given: Names[E]) -> Iterable[str]:
            return given(heard.data) if callable(given) else given

        cache = current_cache().namespace(namespace_of(module))
        done = [
            await cache.invalidate(*names(tags)),
            await cache.delete(*names(keys)),
            *[await cache.delete_pattern(pattern) for pattern in names(patterns)],
        ]
        if not all(done):
            raise UnavailableError("The cache cannot be reached: what the event made untrue is still in it.")

    forget.__module__ = module
    forget.__qualname__ = f"invalidates.{event.__name__}"  # a listener's name, which stored jobs know it by
    return listener(event, durable=durable)(forget)


def _digest(function: Callable[..., Any], arguments: dict[str, Any], constants: Collection[str]) -> str:
    values = {name: _whole(value) for name, value in arguments.items() if not isinstance(value, _TOOLS)}
    values = {name: value for name, value in values.items() if name not in constants or _is_json(value)}
    try:
        content = to_json(values)
    except PydanticSerializationError as exc:
        raise TypeError(
            f"@cached needs a key_builder for {_name(function)}: not every argument can be part of a key ({exc})"
        ) from exc
    if MASKED in content and is_secret(values):
        raise TypeError(f"@cached needs a key_builder for {_name(function)}: secrets look all the same in a key")
    return hashlib.sha256(content).hexdigest()


def _whole(value: Any) -> Any:
    """Return models and dataclasses with all their fields: what their JSON leaves out can make a difference too."""
    if isinstance(value, BaseModel):
        return [type(value).__qualname__, _whole(value.__dict__), _whole(value.__pydantic_extra__)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [
            type(value).__qualname__,
            {field.name: _whole(getattr(value, field.name)) for field in dataclasses.fields(value)},
        ]
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):  # in an order that is the same in every process
        return sorted((_whole(item) for item in value), key=repr)
    if isinstance(value, list | tuple):
        return [_whole(item) for item in value]
    return value


def _is_json(value: Any) -> bool:
    try:
        to_json(value)
    except PydanticSerializationError:
        return False
    return True


def _name(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__qualname__}"
