"""The cache as modules use it: names of their own, values as JSON, tags, one maker at a time."""

import hashlib
import sys
from collections.abc import Callable, Collection, Coroutine, Iterable
from copy import copy
from typing import Any

from pydantic_core import from_json, to_json

from app.core.services.cache.flights import Flights, NotShared
from app.core.services.cache.interface import CacheServiceInterface, Factory, NotKept
from app.core.services.cache.names import caller_tag, matcher, namespace_of
from app.core.services.cache.store import CacheStore, Tokens
from app.core.services.log import logger

COMPLAINTS = 1000
"""How many keys are remembered as complained about: each is logged once."""

COMPLAINT_LENGTH = 200
"""How much of a key that is: who asks may have chosen it."""

MAX_TAG = 200
"""A longer tag, or one beyond ASCII, is stored as its SHA-256: the names of tags do not count as memory in use."""

_TAKEN = object()


class _Made:
    """A value as it is stored, and the tags' tokens it was made under, where it was made just now."""

    def __init__(self, data: bytes, value: Any = _TAKEN, made_under: Tokens | None = None) -> None:
        self.data = data
        self.made_under = made_under
        self._value = value

    def take(self) -> Any:
        """The value, for one who may change it."""
        value, self._value = self._value, _TAKEN
        return from_json(self.data) if value is _TAKEN else value


class CacheService(CacheServiceInterface):
    """The cache over a store: `CacheService(MemoryStore())` in a test.

    The methods are plain functions that give back coroutines: whose namespace it is they read from the caller's
    frame, and once a coroutine runs its caller may be the event loop.
    """

    def __init__(self, store: CacheStore, *, max_value_bytes: int = 1024 * 1024, max_seconds: float = 86400) -> None:
        self._store = store
        self._max_bytes = max_value_bytes
        self._max_seconds = max_seconds
        self._flights = Flights[_Made]()
        self._complaints: set[str] = set()
        self._namespace: str | None = None

    def get(self, key: str, default: Any = None) -> Coroutine[Any, Any, Any]:
        return self._get(f"{self._owner()}:{key}", default)

    def set(
        self, key: str, value: Any, *, ttl: float | None = None, tags: Iterable[str] = ()
    ) -> Coroutine[Any, Any, None]:
        owner = self._owner()
        return self._set(f"{owner}:{key}", value, ttl, _marks(owner, tags))

    def get_or_set(
        self, key: str, factory: Factory, *, ttl: float | None = None, tags: Iterable[str] = ()
    ) -> Coroutine[Any, Any, Any]:
        owner = self._owner()
        return self._get_or_set(f"{owner}:{key}", factory, ttl, _marks(owner, tags))

    def delete(self, *keys: str) -> Coroutine[Any, Any, bool]:
        owner = self._owner()
        return self._forget(_own(owner, keys), _marks(owner, map(caller_tag, keys)))

    def delete_pattern(self, pattern: str) -> Coroutine[Any, Any, bool]:
        return self._forget_matching(self._owner(), pattern)

    def invalidate(self, *tags: str) -> Coroutine[Any, Any, bool]:
        return self._forget((), _marks(self._owner(), tags))

    def namespace(self, name: str) -> "CacheService":
        if not name or ":" in name:
            raise ValueError(f"a namespace is the name of a module, not {name!r}")
        view = copy(self)  # shares the store, and what is being made
        view._namespace = name
        return view

    def _owner(self) -> str:
        return self._namespace or namespace_of(sys._getframe(2).f_globals.get("__name__", "__main__"))

    async def _get(self, key: str, default: Any) -> Any:
        found, _ = await self._find(key, ())
        return found.take() if found else default

    async def _set(self, key: str, value: Any, ttl: float | None, tags: Collection[str]) -> None:
        data = to_json(value)
        self._flights.leave(lambda made, _: made == key)
        tokens = await self._store.claim(tags) if tags else {}
        if not await self._write(key, data, ttl, tags, tokens):
            await self._store.remove((key,))  # what is there is no longer true
        self._flights.leave(lambda made, _: made == key)

    async def _get_or_set(self, key: str, factory: Factory, ttl: float | None, tags: Collection[str]) -> Any:
        alone: list[Any] = []

        async def make() -> _Made:
            found, tokens = await self._find(key, tags)
            if found:
                return found
            if len(tokens) < len(tags):
                tokens = await self._store.claim(tags)  # before: what is invalidated from here on is not kept
            value = await factory()
            if isinstance(value, NotKept):
                alone.append(value.value)
                raise NotShared
            return _Made(to_json(value), made_under=tokens)

        async def keep(made: _Made, still_counts: Callable[[], bool]) -> None:
            if made.made_under is None:
                return
            await self._write(key, made.data, ttl, tags, made.made_under)
            if not still_counts():  # it was forgotten on another connection, perhaps before it arrived
                await self._store.remove((key,))

        try:
            return (await self._flights.join(key, tags, make, keep)).take()
        except NotShared:
            return alone[0]

    async def _forget(self, keys: Collection[str], tags: Collection[str]) -> bool:
        if not keys and not tags:
            return True

        def concerns(made: str, made_tags: Collection[str]) -> bool:
            return made in keys or not set(tags).isdisjoint(made_tags)

        self._flights.leave(concerns)
        done = await self._store.remove(keys, tags)
        self._flights.leave(concerns)  # who began meanwhile may have read what was still there
        return done

    async def _forget_matching(self, namespace: str, pattern: str) -> bool:
        prefix, fits = f"{namespace}:", matcher(pattern)

        def concerns(made: str, _: Collection[str]) -> object:
            return made.startswith(prefix) and fits(made.removeprefix(prefix))

        self._flights.leave(concerns)
        done = await self._store.remove_matching(namespace, pattern)
        self._flights.leave(concerns)
        return done

    async def _find(self, key: str, tags: Collection[str]) -> tuple[_Made | None, Tokens]:
        """What is stored and still counts, and what the tags stand for."""
        stored, tokens = await self._store.read(key, tags)
        if stored is None:
            return None, tokens
        try:
            stored_under, found = self._unpack(stored)
        except ValueError:
            self._complain("a cached value cannot be read and counts as absent", key)
            await self._store.remove((key,))
            return None, tokens
        if unknown := stored_under.keys() - set(tags):
            _, others = await self._store.read(key, unknown)
            tokens = {**tokens, **others}
        counts = all(tokens.get(tag) == token for tag, token in stored_under.items())
        return found if counts else None, tokens

    async def _write(self, key: str, data: bytes, ttl: float | None, tags: Collection[str], tokens: Tokens) -> bool:
        seconds = self._max_seconds if ttl is None else min(ttl, self._max_seconds)
        packed = to_json({tag: tokens.get(tag) for tag in tags}) + b"\n" + data
        if len(key) + len(packed) > self._max_bytes:
            self._complain("a value is too large for the cache", key)
            return False
        if not seconds > 0 or not all(tag in tokens for tag in tags):
            return False
        return await self._store.write(key, packed, seconds, tags)

    def _unpack(self, stored: bytes) -> tuple[dict[str, str], _Made]:
        """The tokens it was stored under, and the value; ValueError for what this class has not written."""
        head, line_end, data = stored.partition(b"\n")
        tokens = from_json(head)
        if len(stored) > self._max_bytes or not line_end or not isinstance(tokens, dict):
            raise ValueError("not written by the cache")
        return tokens, _Made(data, from_json(data))

    def _complain(self, message: str, key: str) -> None:
        shown = key[:COMPLAINT_LENGTH]
        if shown not in self._complaints and len(self._complaints) < COMPLAINTS:
            self._complaints.add(shown)
            logger.warning(message, key=shown)


def _own(owner: str, names: Iterable[str]) -> list[str]:
    if isinstance(names, str):
        raise ValueError(f"names must be a list, not the text {names!r}")
    return [f"{owner}:{name}" for name in dict.fromkeys(names)]


def _marks(owner: str, tags: Iterable[str]) -> list[str]:
    return [tag if len(tag) <= MAX_TAG and tag.isascii() else f"{owner}:{_digest(tag)}" for tag in _own(owner, tags)]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
