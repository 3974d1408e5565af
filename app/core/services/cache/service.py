"""The cache service: namespaces, JSON, tags and single flight over a store."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable
from copy import copy
from functools import update_wrapper
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

from pydantic_core import from_json, to_json

from app.core.metrics import cache_reads
from app.core.services.cache.interface import (
    CacheServiceInterface,
    Factory,
    NotKept,
    caller_tag,
    calling_module,
    namespace_of,
)
from app.core.services.cache.store import (
    CACHE_MAX_SECONDS,
    CACHE_MAX_VALUE_BYTES,
    CacheStore,
    Tokens,
    matcher,
)
from app.core.services.log import logger

MAX_SHOWN = 200
"""Characters of a key in the log: the client may have chosen it."""

MAX_WARNED = 1000
"""Keys that are warned about, each once: after so many no other is."""

MAX_TAG = 200
"""A longer tag, or one beyond ASCII, is stored as its SHA-256: the names of tags do not count as memory in use."""

PATIENCE = 5.0
"""Seconds to wait for another caller's computation before starting one's own: that one may wait for a lock of ours."""

P = ParamSpec("P")
R = TypeVar("R")

Compute = Callable[[Callable[[], bool]], Awaitable[bytes]]
"""Computes a value; is given a function that tells whether the result may be stored."""

Concerns = Callable[[str, Collection[str]], object]
"""Tells whether a change concerns the entry with this key and these tags."""


class NotShared(Exception):
    """The computed value is for its own caller only."""


class SingleFlight:
    """Concurrent callers for one key share one computation."""

    def __init__(self) -> None:
        self._running: dict[str, tuple[asyncio.Future[bytes], Collection[str]]] = {}

    async def run(self, key: str, tags: Collection[str], compute: Compute) -> bytes:
        """Return what `compute` returns to one of the callers; what it raises reaches all of them.

        If that one is cancelled, another takes over. If it raises NotShared, each caller computes alone.
        """
        while running := self._running.get(key):
            result, _ = running
            await asyncio.wait((result,), timeout=PATIENCE)
            if not result.done():
                return await compute(_never)
            if not result.cancelled():
                try:
                    return result.result()
                except NotShared:
                    return await compute(_never)
        return await self._lead(key, tags, compute)

    def abandon(self, concerns: Concerns) -> None:
        """Detach computations that are outdated: their results are not stored, and later callers start anew."""
        for key in [key for key, (_, tags) in self._running.items() if concerns(key, tags)]:
            del self._running[key]

    async def _lead(self, key: str, tags: Collection[str], compute: Compute) -> bytes:
        result: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        running = self._running[key] = result, tags

        def is_current() -> bool:
            return self._running.get(key) is running

        try:
            data = await compute(is_current)
            result.set_result(data)
            return data
        except Exception as exc:
            result.set_exception(exc)
            result.exception()  # nobody need be waiting for it
            raise
        finally:
            result.cancel()
            if is_current():
                del self._running[key]


def _never() -> bool:
    return False


class _Stored(NamedTuple):
    data: bytes
    value: Any


def _in_callers_namespace(
    method: Callable[Concatenate["CacheService", P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate["CacheService", P], Coroutine[Any, Any, R]]:
    """Run a method in the namespace of the module that calls it.

    In a plain function: once a coroutine runs, its caller may be the event loop.
    """

    def call(self: "CacheService", /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        view = self if self._namespace else self.namespace(namespace_of(calling_module()))
        return method(view, *args, **kwargs)

    update_wrapper(call, method)
    return call


class CacheService(CacheServiceInterface):
    """The cache over a store: `CacheService(MemoryStore())` in a test."""

    def __init__(
        self,
        store: CacheStore,
        *,
        max_value_bytes: int = CACHE_MAX_VALUE_BYTES,
        max_seconds: float = CACHE_MAX_SECONDS,
    ) -> None:
        self._store = store
        self._max_bytes = max_value_bytes
        self._max_seconds = max_seconds
        self._flights = SingleFlight()
        self._warned: set[str] = set()
        self._namespace: str | None = None

    def namespace(self, name: str) -> "CacheService":
        if not name or ":" in name:
            raise ValueError(f"a namespace is the name of a module, not {name!r}")
        view = copy(self)  # shares the store, the running computations and the warned keys
        view._namespace = name
        return view

    @_in_callers_namespace
    async def get(self, key: str, default: Any = None) -> Any:
        found, _ = await self._read(self._key(key), ())
        return found.value if found else default

    @_in_callers_namespace
    async def set(self, key: str, value: Any, *, ttl: float | None = None, tags: Iterable[str] = ()) -> None:
        name, tag_names = self._key(key), self._tags(tags)
        data = to_json(value)

        async def write() -> bool:
            tokens = await self._store.claim(tag_names) if tag_names else {}
            written = await self._write(name, data, ttl, tag_names, tokens)
            return written or await self._store.remove((name,))  # the old value is outdated

        await self._change(lambda key, _: key == name, write())

    @_in_callers_namespace
    async def get_or_set(
        self, key: str, factory: Factory, *, ttl: float | None = None, tags: Iterable[str] = ()
    ) -> Any:
        name, tag_names = self._key(key), self._tags(tags)
        own: list[Any] = []  # values that no other caller holds

        async def compute(may_be_stored: Callable[[], bool]) -> bytes:
            found, tokens = await self._read(name, tag_names)
            if found:
                own.append(found.value)
                return found.data
            if len(tokens) < len(tag_names):
                tokens = await self._store.claim(tag_names)  # before: an invalidation from here on counts
            value = await factory()
            if isinstance(value, NotKept):
                own.append(value.value)
                raise NotShared
            data = to_json(value)
            if may_be_stored():
                await self._write(name, data, ttl, tag_names, tokens)
                if not may_be_stored():  # deleted on another connection, perhaps before the value arrived
                    await self._store.remove((name,))
            return data

        try:
            data = await self._flights.run(name, tag_names, compute)
        except NotShared:
            return own[0]
        return own[0] if own else from_json(data)

    @_in_callers_namespace
    async def delete(self, *keys: str) -> bool:
        return await self._remove([self._key(key) for key in keys], self._tags(map(caller_tag, keys)))

    @_in_callers_namespace
    async def invalidate(self, *tags: str) -> bool:
        return await self._remove((), self._tags(tags))

    @_in_callers_namespace
    async def delete_pattern(self, pattern: str) -> bool:
        namespace, prefix, matches = str(self._namespace), self._key(""), matcher(pattern)
        return await self._change(
            lambda key, _: key.startswith(prefix) and matches(key.removeprefix(prefix)),
            self._store.remove_matching(namespace, pattern),
        )

    async def _remove(self, keys: Collection[str], tags: Collection[str]) -> bool:
        if not keys and not tags:
            return True
        return await self._change(
            lambda key, key_tags: key in keys or not set(tags).isdisjoint(key_tags), self._store.remove(keys, tags)
        )

    async def _change(self, concerns: Concerns, change: Awaitable[bool]) -> bool:
        self._flights.abandon(concerns)
        done = await change
        self._flights.abandon(concerns)  # one that began meanwhile may have read the old value
        return done

    async def _read(self, key: str, tags: Collection[str]) -> tuple[_Stored | None, Tokens]:
        """Read what is stored and still valid, and the tokens of the tags."""
        found, tokens = await self._read_valid(key, tags)
        cache_reads.inc("hit" if found else "miss")
        return found, tokens

    async def _read_valid(self, key: str, tags: Collection[str]) -> tuple[_Stored | None, Tokens]:
        stored, tokens = await self._store.read(key, tags)
        if stored is None:
            return None, tokens
        try:
            stored_under, found = self._unpack(stored)
        except ValueError:
            self._warn_once("a cached value cannot be read and counts as absent", key)
            await self._store.remove((key,))
            return None, tokens
        if unknown := stored_under.keys() - set(tags):
            _, others = await self._store.read(key, unknown)
            tokens = {**tokens, **others}
        is_valid = all(tokens.get(tag) == token for tag, token in stored_under.items())
        return found if is_valid else None, tokens

    async def _write(self, key: str, data: bytes, ttl: float | None, tags: Collection[str], tokens: Tokens) -> bool:
        seconds = self._max_seconds if ttl is None else min(ttl, self._max_seconds)
        packed = to_json({tag: tokens.get(tag) for tag in tags}) + b"\n" + data
        if len(key) + len(packed) > self._max_bytes:
            self._warn_once("a value is too large for the cache", key)
            return False
        if not seconds > 0 or not all(tag in tokens for tag in tags):
            return False
        return await self._store.write(key, packed, seconds, tags)

    def _unpack(self, stored: bytes) -> tuple[dict[str, str], _Stored]:
        """Split the tokens it was stored under from the value; ValueError for what this class has not written."""
        head, line_end, data = stored.partition(b"\n")
        tokens = from_json(head)
        if len(stored) > self._max_bytes or not line_end or not isinstance(tokens, dict):
            raise ValueError("not written by the cache")
        return tokens, _Stored(data, from_json(data))

    def _warn_once(self, message: str, key: str) -> None:
        shown = key[:MAX_SHOWN]
        if shown not in self._warned and len(self._warned) < MAX_WARNED:
            self._warned.add(shown)
            logger.warning(message, key=shown)

    def _key(self, key: str) -> str:
        return f"{self._namespace}:{key}"

    def _tags(self, tags: Iterable[str]) -> list[str]:
        if isinstance(tags, str):
            raise ValueError(f"tags must be a list, not the text {tags!r}")
        names = [self._key(tag) for tag in dict.fromkeys(tags)]
        return [name if len(name) <= MAX_TAG and name.isascii() else self._key(_digest(name)) for name in names]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
