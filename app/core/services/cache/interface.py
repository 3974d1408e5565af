"""The cache contract, and the namespaces of modules in the cache."""

import sys
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from app.core.process import ProcessService, Slot

Factory = Callable[[], Awaitable[Any]]

OF_CALLER = "\x1f"
"""Separates a key from the caller whose entry it is."""

_ROOT = __name__.partition(".")[0]


@dataclass(frozen=True)
class NotKept:
    """Wraps the value of a factory that must not be stored: `return NotKept(value)`."""

    value: Any


class CacheServiceInterface(ProcessService):
    """Values that may vanish at any time. They must be JSON-able or pydantic models; reads return JSON.

    Keys, tags and patterns stay inside the namespace of the calling module: two modules share no key.
    An unreachable cache is a miss, never an error.
    """

    @abstractmethod
    async def get(self, key: str, default: Any = None) -> Any:
        """Return the stored value, or `default` if there is none; None is a value like any other."""

    @abstractmethod
    async def set(self, key: str, value: Any, *, ttl: float | None = None, tags: Iterable[str] = ()) -> None:
        """Store `value` for `ttl` seconds (None: `CACHE_MAX_SECONDS`), until one of the tags is invalidated."""

    @abstractmethod
    async def get_or_set(
        self, key: str, factory: Factory, *, ttl: float | None = None, tags: Iterable[str] = ()
    ) -> Any:
        """Return the stored value, or compute it by `factory`; concurrent callers share one computation.

        An exception of the factory reaches all of them. A value whose tags were invalidated while it was computed
        is not stored. The value of a `NotKept` is returned as it is, to its own caller only, and not stored.
        """

    @abstractmethod
    async def delete(self, *keys: str) -> bool:
        """Delete the keys, in all entries that `@cached` keeps per caller; absent keys are no error.

        Here and below, False means that the cache is unreachable: the deletion is done once it is back.
        """

    @abstractmethod
    async def delete_pattern(self, pattern: str) -> bool:
        """Delete the keys that match: `*` is any text, `?` one character, everything else itself.

        This scans every key there is; a tag costs one step.
        """

    @abstractmethod
    async def invalidate(self, *tags: str) -> bool:
        """Delete what was stored with any of the tags."""

    @abstractmethod
    def namespace(self, name: str) -> "CacheServiceInterface":
        """Return the cache as the module `name` sees it: `cache.namespace("auth")`."""


current_cache = Slot[CacheServiceInterface]()
"""The cache of this process."""


def namespace_of(module: str) -> str:
    """Return the namespace of a Python module: `auth` for `app.auth.services.login`, the package for any other."""
    first, _, rest = module.partition(".")
    return rest.partition(".")[0] if first == _ROOT and rest else first


def calling_module() -> str:
    """Return the module that called the function which asks.

    `cache.get("key")` and `invalidates(Event, tags=["a"])` name no module, nor does any of their arguments; only
    the caller's frame does.
    """
    name: str = sys._getframe(2).f_globals.get("__name__", "__main__")
    return name


def caller_tag(key: str) -> str:
    """Return the tag of the entries that belong to single callers under `key`."""
    return f"callers of {key}"
