"""Cache: values that may vanish at any time."""

from app.core.services.cache.decorator import cached
from app.core.services.cache.interface import CacheServiceInterface
from app.core.services.cache.memory import MemoryCacheService
from app.core.services.cache.redis import RedisCacheService

__all__ = ["CacheServiceInterface", "MemoryCacheService", "RedisCacheService", "cached"]
