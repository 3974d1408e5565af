"""Cache: values that may vanish at any time."""

from app.core.services.cache.decorator import cached, invalidates
from app.core.services.cache.interface import CacheServiceInterface, NotKept
from app.core.services.cache.redis import RedisStore
from app.core.services.cache.service import CacheService
from app.core.services.cache.store import CacheStore, Found, MemoryStore, Tokens, matcher

__all__ = [
    "CacheService",
    "CacheServiceInterface",
    "CacheStore",
    "Found",
    "MemoryStore",
    "NotKept",
    "RedisStore",
    "Tokens",
    "cached",
    "invalidates",
    "matcher",
]
