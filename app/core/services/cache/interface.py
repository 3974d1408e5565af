"""The cache contract."""

from abc import ABC, abstractmethod
from typing import Any


class CacheServiceInterface(ABC):
    """Values that may vanish at any time. They must be JSON-able or pydantic models; reads give JSON back."""

    @abstractmethod
    async def get(self, key: str) -> Any | None:
        """The stored value, or None where there is none."""

    @abstractmethod
    async def set(self, key: str, value: Any, *, ttl: float | None = None) -> None:
        """Store `value` for `ttl` seconds (without end where None)."""

    @abstractmethod
    async def delete(self, *keys: str) -> None:
        """Forget the keys; absent ones are no error."""
