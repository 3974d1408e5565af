"""`@cached`: remember what a path operation or a function gives back."""

import dataclasses
import functools
import hashlib
import inspect
import math
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import Any, NamedTuple, ParamSpec, TypeVar, cast, get_type_hints

from fastapi import Response
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError
from pydantic_core import PydanticSerializationError, to_json
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session

from app.core.services.cache.answers import EXCHANGE, Answer, Exchange, with_exchange
from app.core.services.cache.interface import CacheServiceInterface, Factory, NotKept, current_cache
from app.core.services.cache.names import OF_CALLER, caller_tag, namespace_of
from app.core.services.events.interface import EventsServiceInterface
from app.core.services.mail.interface import MailServiceInterface
from app.core.services.queue.interface import QueueServiceInterface
from app.core.services.secret_types import is_secret

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

KeyBuilder = Callable[..., str]

Tags = Iterable[str] | Callable[..., Iterable[str]]
"""Tags, or what makes them of those arguments of the function that it names."""

_MASKED = b'"**********"'

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
    """Keep the result of a coroutine function for `ttl` seconds; of those who ask at once, one call answers all.

    The key is `key_builder(function, *args, **kwargs)`, to be used with `CacheService.delete` as it stands, or
    the function and all its arguments; `prefix` goes before the one and in the place of the other's function.
    A user among the arguments is part of it, and on a path operation so is the caller a dependency has proven,
    unless `private=False`. A dependency of a path operation that nothing of the request reaches (a service) is
    no part of it. Any other argument that is no value (the request itself, a service made of it) needs a
    `key_builder`: leaving it out of the key could show one caller's result to another. What is given back is what
    the annotation of the return makes of the JSON, on a miss as on a hit.

    A path operation answers with `ETag` and `Cache-Control`, and 304 to who has the answer already. Only GET and
    HEAD are remembered, and only what is no `Response`, has no other status and sets no cookie.
    """

    if isinstance(tags, str):
        raise TypeError("@cached takes a list of tags, not one text")
    if ttl is not None and not math.isfinite(ttl):
        raise ValueError(f"@cached takes a number of seconds, or None for no end of its own, not {ttl}")

    def decorate(function: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
        if not inspect.iscoroutinefunction(function):
            raise TypeError(f"@cached takes an `async def`, not {function!r}")
        codec = _Codec(function)
        signature = inspect.signature(function)
        namespace = namespace_of(function.__module__)
        start = f"{prefix or _name(function)}:"
        named = inspect.signature(tags).parameters if callable(tags) else {}
        everything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in named.values())
        if not everything and (unknown := named.keys() - signature.parameters.keys()):
            raise TypeError(f"@cached: {_name(function)} has no argument {', '.join(sorted(unknown))} to make tags of")

        def key_of(constants: Collection[str], *args: P.args, **kwargs: P.kwargs) -> str:
            if key_builder is None:
                return start + _digest(function, signature.bind(*args, **kwargs), constants)
            built = key_builder(function, *args, **kwargs)
            return start + built if prefix else built

        def taken(*args: P.args, **kwargs: P.kwargs) -> dict[str, Any]:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            return {name: value for name, value in bound.arguments.items() if everything or name in named}

        @functools.wraps(function)
        async def remember(*args: P.args, **kwargs: P.kwargs) -> R:
            exchange = cast(Exchange | None, kwargs.pop(EXCHANGE, None))
            answers = exchange is not None and exchange.is_answered_by(remember)
            call = functools.partial(function, *args, **kwargs)
            if exchange and answers and not exchange.is_safe:
                return await call()
            key = key_of(exchange.constants if exchange and answers else (), *args, **kwargs)
            if OF_CALLER in key:
                return await call()  # with the separator in it, a key could be that of another caller's entry
            marks = list(tags(**taken(*args, **kwargs)) if callable(tags) else tags)
            if exchange and private and (caller := exchange.caller):
                marks.append(caller_tag(key))
                key += OF_CALLER + caller
            place = _Place(current_cache().namespace(namespace), key, ttl, marks)
            if exchange and answers:
                return cast(R, await _answer(exchange, place, call, codec))

            async def make() -> Any:
                return codec.dump(await call())

            return cast(R, await place.recall(make, codec.load))

        remember.__signature__ = with_exchange(signature)  # type: ignore[attr-defined]  # what FastAPI looks at
        return remember

    return decorate


class _Passed(NamedTuple):
    """What an operation gave that is not kept."""

    value: Any


class _Place(NamedTuple):
    """Where in the cache a result is kept."""

    cache: CacheServiceInterface
    key: str
    ttl: float | None
    tags: Sequence[str]

    async def recall(self, make: Factory, load: Callable[[Any], T]) -> T:
        """What is there, as `load` reads it; what `make` gives where there is nothing it can read."""
        made = False

        async def watched() -> Any:
            nonlocal made
            made = True
            return await make()

        for _ in range(2):
            stored = await self.cache.get_or_set(self.key, watched, ttl=self.ttl, tags=self.tags)
            try:
                return load(stored)
            except ValidationError:  # by another version of the code, or another hand
                if made:
                    raise
                await self.cache.delete(self.key)
        return load(await make())


async def _answer(exchange: Exchange, place: _Place, call: Factory, codec: "_Codec") -> Any:
    """The result of a path operation, or the response that stands for it."""
    made = False

    async def make() -> Any:
        nonlocal made
        made = True
        before = list(exchange.response.raw_headers)
        result = await call()
        if isinstance(result, Response):
            return NotKept(_Passed(result))
        value = codec.dump(result)
        return exchange.kept(value, before, place.ttl) or NotKept(_Passed(codec.load(value)))

    def load(stored: Any) -> Any:
        if isinstance(stored, NotKept):
            stored = stored.value
        if isinstance(stored, _Passed):
            return stored.value
        answer = Answer.model_validate(stored)
        value = codec.load(answer.value)
        return exchange.not_modified(answer, replay=not made) or value

    return await place.recall(make, load)


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
            dumped = adapter.dump_python(checked, mode="json", by_alias=False, round_trip=True)
        except (ValidationError, PydanticSerializationError) as exc:
            raise TypeError(f"@cached cannot keep what {_name(self._function)} returned: {type(exc).__name__}") from exc
        if _MASKED in to_json(dumped) and is_secret(adapter.dump_python(checked)):
            raise TypeError(f"@cached cannot keep what {_name(self._function)} returned: it holds a secret")
        return dumped

    def load(self, value: Any) -> Any:
        return self._adapter.validate_python(value, by_alias=True, by_name=True)


def _digest(function: Callable[..., Any], arguments: inspect.BoundArguments, constants: Collection[str]) -> str:
    arguments.apply_defaults()
    given = {name: value for name, value in arguments.arguments.items() if not isinstance(value, _TOOLS)}
    values = {name: _whole(value) for name, value in given.items()}
    values = {name: value for name, value in values.items() if name not in constants or _is_json(value)}
    try:
        content = to_json(values)
    except PydanticSerializationError as exc:
        raise TypeError(
            f"@cached needs a key_builder for {_name(function)}: not every argument can be part of a key ({exc})"
        ) from exc
    if _MASKED in content and is_secret(values):
        raise TypeError(f"@cached needs a key_builder for {_name(function)}: secrets look all the same in a key")
    return hashlib.sha256(content).hexdigest()


def _whole(value: Any) -> Any:
    """Models and dataclasses with all they hold: what their JSON leaves out can make a difference too."""
    if isinstance(value, BaseModel):
        return [type(value).__qualname__, _whole(value.__dict__), _whole(value.__pydantic_extra__)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [
            type(value).__qualname__,
            {field.name: _whole(getattr(value, field.name)) for field in dataclasses.fields(value)},
        ]
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
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
