"""The cache of a single process."""

import time
from collections import OrderedDict
from typing import Any

from pydantic_core import from_json, to_json

from app.core.services.cache.interface import CacheServiceInterface


class MemoryCacheService(CacheServiceInterface):
    """At most `max_items` entries, the least recently used give way.

    Values are kept serialised, so that a caller who changes what it got changes nothing here.
    """

    def __init__(self, max_items: int) -> None:
        self._max_items = max_items
        self._entries: OrderedDict[str, tuple[float | None, bytes]] = OrderedDict()

    async def get(self, key: str) -> Any | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        ends_at, value = entry
        if ends_at is not None and ends_at <= time.monotonic():
            del self._entries[key]
            return None
        self._entries.move_to_end(key)
        return from_json(value)

    async def set(self, key: str, value: Any, *, ttl: float | None = None) -> None:
        self._entries[key] = (None if ttl is None else time.monotonic() + ttl, to_json(value))
        self._entries.move_to_end(key)
        while len(self._entries) > self._max_items:
            self._entries.popitem(last=False)

    async def delete(self, *keys: str) -> None:
        for key in keys:
            self._entries.pop(key, None)
