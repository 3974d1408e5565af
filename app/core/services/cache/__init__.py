"""Cache: values that may vanish at any time."""

from app.core.services.cache.decorator import cached
from app.core.services.cache.interface import CacheServiceInterface, NotKept
from app.core.services.cache.invalidation import invalidates
from app.core.services.cache.memory import MemoryStore
from app.core.services.cache.redis import RedisStore
from app.core.services.cache.service import CacheService
from app.core.services.cache.store import CacheStore

__all__ = [
    "CacheService",
    "CacheServiceInterface",
    "CacheStore",
    "MemoryStore",
    "NotKept",
    "RedisStore",
    "cached",
    "invalidates",
]
