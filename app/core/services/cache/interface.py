"""The cache contract."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from app.core.process import Slot


@dataclass(frozen=True)
class NotKept:
    """What a factory gives back instead of a value that must not be kept: `return NotKept(value)`."""

    value: Any


Factory = Callable[[], Awaitable[Any]]


class CacheServiceInterface(ABC):
    """Values that may vanish at any time. They must be JSON-able or pydantic models; reads give JSON back.

    Keys, tags and patterns stay inside the namespace of the module that calls: two modules share no key.
    A cache that cannot be reached is a miss, never an error.
    """

    @abstractmethod
    async def get(self, key: str, default: Any = None) -> Any:
        """The stored value, or `default` where there is none; None is a value like any other."""

    @abstractmethod
    async def set(self, key: str, value: Any, *, ttl: float | None = None, tags: Iterable[str] = ()) -> None:
        """Store `value` for `ttl` seconds (`CACHE_MAX_SECONDS` where None) under what the tags stand for."""

    @abstractmethod
    async def get_or_set(
        self, key: str, factory: Factory, *, ttl: float | None = None, tags: Iterable[str] = ()
    ) -> Any:
        """The stored value, made by `factory` where there is none; of those who ask at once, one makes it.

        What the factory raises reaches all who wait for it. What was invalidated while it ran is not kept. Of a
        `NotKept` the value is given back, as it is, and not stored.
        """

    @abstractmethod
    async def delete(self, *keys: str) -> bool:
        """Forget the keys, for every caller `@cached` tells apart; absent ones are no error.

        False, here and below, where the cache could not be reached: it is done when it can be.
        """

    @abstractmethod
    async def delete_pattern(self, pattern: str) -> bool:
        """Forget the keys that fit: `*` is any text, `?` one character, everything else itself.

        Walks over every key there is; a tag costs one step.
        """

    @abstractmethod
    async def invalidate(self, *tags: str) -> bool:
        """Forget what was stored under any of the tags."""

    @abstractmethod
    def namespace(self, name: str) -> "CacheServiceInterface":
        """The cache as the module `name` sees it: `cache.namespace("auth")`."""

    async def close(self) -> None:  # noqa: B027  most hold nothing
        """Release what the service holds. Called once, when the process ends."""


current_cache = Slot[CacheServiceInterface]()
"""The cache of this process."""
