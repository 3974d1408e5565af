"""The cache of a single process."""

import time
from collections import OrderedDict
from collections.abc import Collection
from itertools import count
from typing import NamedTuple

from app.core.services.cache.names import matcher
from app.core.services.cache.store import CacheStore, Found, Tokens

ENTRY_BYTES = 250
"""What an entry takes beside its key and its data, roughly."""

SWEEP_EVERY = 1000
"""How many writes at least lie between two looks for what has expired."""


class _Entry(NamedTuple):
    ends_at: float
    data: bytes


class MemoryStore(CacheStore):
    """At most `max_items` entries and `max_bytes` of memory; the least recently used give way."""

    def __init__(self, max_items: int = 10_000, max_bytes: int = 64 * 1024 * 1024) -> None:
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
        while len(self._tokens) > self._max_items:  # whatever was stored under the lost ones is a miss
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
        fits, prefix = matcher(pattern), f"{namespace}:"
        for key in list(self._entries):
            if key.startswith(prefix) and fits(key.removeprefix(prefix)):
                self._drop(key)
        return True

    def _drop(self, key: str) -> None:
        if entry := self._entries.pop(key, None):
            self._bytes -= _size(key, entry.data)

    def _sweep(self) -> None:
        """Drop what has expired, so seldom that a write costs the same however much there is."""
        self._writes_to_sweep -= 1
        if self._writes_to_sweep > 0:
            return
        now = time.monotonic()
        for key in [key for key, entry in self._entries.items() if entry.ends_at <= now]:
            self._drop(key)
        self._writes_to_sweep = max(SWEEP_EVERY, len(self._entries))


def _size(key: str, data: bytes) -> int:
    return ENTRY_BYTES + len(key) + len(data)
