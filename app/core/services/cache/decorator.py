"""`@cached`: remember what a path operation or a function gives back."""

import functools
import hashlib
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, TypeVar, cast, get_type_hints

from pydantic import BaseModel, Secret, SecretBytes, SecretStr, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError
from pydantic_core import PydanticSerializationError, to_json
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session

from app.core.services.cache.interface import CacheServiceInterface
from app.core.services.events.interface import EventsServiceInterface
from app.core.services.mail.interface import MailServiceInterface
from app.core.services.queue.interface import QueueServiceInterface

P = ParamSpec("P")
R = TypeVar("R")

KeyBuilder = Callable[..., str]

_plain: TypeAdapter[Any] = TypeAdapter(Any)

# What stands for no value: it does not change a result.
_TOOLS = (
    AsyncSession,
    async_scoped_session,
    CacheServiceInterface,
    EventsServiceInterface,
    MailServiceInterface,
    QueueServiceInterface,
)


def cached(
    *, ttl: float | None, key_builder: KeyBuilder | None = None
) -> Callable[[Callable[P, Awaitable[R]]], Callable[P, Awaitable[R]]]:
    """Keep the result of a coroutine function for `ttl` seconds; None results are not kept.

    The key is `key_builder(function, *args, **kwargs)`, to be used with `CacheService.delete` as it stands, or
    the function and all its arguments. A user among the arguments is part of the key, so that users share no
    entry. An argument that is no value (a service, a request) needs a `key_builder`: leaving it out of the key
    could show one caller's result to another. What is given back is what the annotation of the return makes of
    the JSON, on a miss as on a hit.
    """

    def decorate(function: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
        if not inspect.iscoroutinefunction(function):
            raise TypeError(f"@cached takes an `async def`, not {function!r}")
        codec = _Codec(function)
        signature = inspect.signature(function)

        @functools.wraps(function)
        async def remember(*args: P.args, **kwargs: P.kwargs) -> R:
            cache = _cache()
            key = (
                key_builder(function, *args, **kwargs)
                if key_builder
                else _key(function, signature.bind(*args, **kwargs))
            )
            stored = await cache.get(key)
            if stored is not None:
                try:
                    return cast(R, codec.load(stored))
                except ValidationError:
                    pass  # stored by another version of the code: a miss
            value = codec.dump(await function(*args, **kwargs))
            await cache.set(key, value, ttl=ttl)
            return cast(R, codec.load(value))

        return remember

    return decorate


class _Codec:
    """Turns a function's result into JSON and back, by its return annotation."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    @functools.cached_property
    def _adapter(self) -> TypeAdapter[Any]:
        # Built on first use: the annotation may name what is defined after the function.
        annotation = get_type_hints(self._function, include_extras=True).get("return", Any)
        try:
            return TypeAdapter(annotation)
        except PydanticSchemaGenerationError as exc:
            raise TypeError(f"@cached cannot keep what {_name(self._function)} returns: {annotation!r}") from exc

    def dump(self, value: Any) -> Any:
        adapter = self._adapter
        try:
            # From attributes: an ORM object becomes the schema the annotation names.
            checked = adapter.validate_python(value, from_attributes=True)
            return adapter.dump_python(checked, mode="json", by_alias=False, round_trip=True)
        except (ValidationError, PydanticSerializationError) as exc:
            raise TypeError(f"@cached cannot keep what {_name(self._function)} returned: {type(exc).__name__}") from exc

    def load(self, value: Any) -> Any:
        return self._adapter.validate_python(value, by_alias=True, by_name=True)


def _key(function: Callable[..., Any], arguments: inspect.BoundArguments) -> str:
    arguments.apply_defaults()
    values: dict[str, Any] = {}
    for name, value in arguments.arguments.items():
        if isinstance(value, _TOOLS):
            continue
        values[name] = [type(value).__qualname__, value.__dict__] if isinstance(value, BaseModel) else value
    try:
        content = to_json(values)
    except PydanticSerializationError as exc:
        raise TypeError(
            f"@cached needs a key_builder for {_name(function)}: not every argument can be part of a key ({exc})"
        ) from exc
    if b'"**********"' in content and _holds_secret(_plain.dump_python(values)):
        raise TypeError(f"@cached needs a key_builder for {_name(function)}: secrets look all the same in a key")
    return f"{_name(function)}:{hashlib.sha256(content).hexdigest()}"


def _name(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def _holds_secret(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_holds_secret, (*value.keys(), *value.values())))
    if isinstance(value, list | tuple | set | frozenset):
        return any(map(_holds_secret, value))
    return isinstance(value, SecretStr | SecretBytes | Secret)


def _cache() -> CacheServiceInterface:
    from app.core.runtime import runtime

    return runtime().cache
