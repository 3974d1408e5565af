"""Storage of the cache: bytes by key and a token for each tag, in process here, in Redis next door."""

import fnmatch
import re
import time
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from itertools import count
from typing import NamedTuple

from app.core.services.cache.interface import OF_CALLER

CACHE_MAX_SECONDS = 86_400
"""Lifetime of any value, whatever its ttl."""

CACHE_MAX_VALUE_BYTES = 1024 * 1024
"""Size of one value; a larger one is not stored."""

CACHE_MAX_ITEMS = 10_000
CACHE_MAX_BYTES = 64 * 1024 * 1024
"""Size of the cache in process, keys and values together."""

ENTRY_BYTES = 250
"""Approximate memory of an entry beside its key and its data."""

SWEEP_EVERY = 1000
"""Minimum number of writes between two sweeps of expired entries."""

Tokens = Mapping[str, str]
"""Current tokens of tags. An entry is valid while its tags still have the tokens it was stored under."""


class Found(NamedTuple):
    """The data of a key, and the tokens of those tags asked for that have one."""

    data: bytes | None
    tokens: Tokens


class CacheStore(ABC):
    """Bytes by key. Deleting a tag's token invalidates every entry stored under it, without a list of them."""

    @abstractmethod
    async def read(self, key: str, tags: Collection[str]) -> Found:
        """Read the key, and the tokens of the tags."""

    @abstractmethod
    async def claim(self, tags: Collection[str]) -> Tokens:
        """Return the tags' tokens, creating those that are absent."""

    @abstractmethod
    async def write(self, key: str, data: bytes, seconds: float, tags: Collection[str]) -> bool:
        """Keep `data` for `seconds`, and the tokens of its tags at least as long. False if it could not be kept."""

    @abstractmethod
    async def remove(self, keys: Collection[str], tags: Collection[str] = ()) -> bool:
        """Delete keys and tokens. False if the deletion is postponed."""

    @abstractmethod
    async def remove_matching(self, namespace: str, pattern: str) -> bool:
        """Delete the keys of the namespace that match the pattern. False if the deletion is postponed."""


@lru_cache
def matcher(pattern: str) -> Callable[[str], object]:
    """Return a function that tells whether a key matches, whichever caller's entry it is."""
    glob = fnmatch.translate(pattern.replace("[", "[[]"))  # only * and ? are special here
    whole = re.compile(glob.removesuffix(r"\z").removesuffix(r"\Z") + f"(?s:{OF_CALLER}.*)?")
    return whole.fullmatch


class _Entry(NamedTuple):
    ends_at: float
    data: bytes


class MemoryStore(CacheStore):
    """At most `max_items` entries and `max_bytes` of memory; the least recently used are evicted."""

    def __init__(self, max_items: int = CACHE_MAX_ITEMS, max_bytes: int = CACHE_MAX_BYTES) -> None:
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._tokens: OrderedDict[str, str] = OrderedDict()
        self._new_token = map(str, count())
        self._writes_to_sweep = SWEEP_EVERY

    async def read(self, key: str, tags: Collection[str]) -> Found:
        entry = self._entries.get(key)
        if entry and entry.ends_at <= time.monotonic():
            self._drop(key)
            entry = None
        if entry:
            self._entries.move_to_end(key)
        return Found(entry.data if entry else None, {tag: self._tokens[tag] for tag in tags if tag in self._tokens})

    async def claim(self, tags: Collection[str]) -> Tokens:
        for tag in tags:
            if tag not in self._tokens:
                self._tokens[tag] = next(self._new_token)
            self._tokens.move_to_end(tag)
        tokens = {tag: self._tokens[tag] for tag in tags}
        while len(self._tokens) > self._max_items:  # whatever was stored under the evicted ones is a miss
            self._tokens.popitem(last=False)
        return tokens

    async def write(self, key: str, data: bytes, seconds: float, tags: Collection[str]) -> bool:
        self._drop(key)
        self._entries[key] = _Entry(time.monotonic() + seconds, data)
        self._bytes += _size(key, data)
        self._sweep()
        while len(self._entries) > self._max_items or self._bytes > self._max_bytes:
            self._drop(next(iter(self._entries)))
        return True

    async def remove(self, keys: Collection[str], tags: Collection[str] = ()) -> bool:
        for key in keys:
            self._drop(key)
        for tag in tags:
            self._tokens.pop(tag, None)
        return True

    async def remove_matching(self, namespace: str, pattern: str) -> bool:
        matches, prefix = matcher(pattern), f"{namespace}:"
        return await self.remove(
            [key for key in self._entries if key.startswith(prefix) and matches(key.removeprefix(prefix))]
        )

    def _drop(self, key: str) -> None:
        if entry := self._entries.pop(key, None):
            self._bytes -= _size(key, entry.data)

    def _sweep(self) -> None:
        """Drop expired entries, so seldom that a write costs the same however many there are."""
        self._writes_to_sweep -= 1
        if self._writes_to_sweep > 0:
            return
        now = time.monotonic()
        for key in [key for key, entry in self._entries.items() if entry.ends_at <= now]:
            self._drop(key)
        self._writes_to_sweep = max(SWEEP_EVERY, len(self._entries))


def _size(key: str, data: bytes) -> int:
    return ENTRY_BYTES + len(key) + len(data)
