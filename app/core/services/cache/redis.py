"""The cache that several processes share."""

from collections.abc import Awaitable
from typing import Any, TypeVar

from pydantic_core import from_json, to_json
from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.core.services.cache.interface import CacheServiceInterface
from app.core.services.log import logger

T = TypeVar("T")


class RedisCacheService(CacheServiceInterface):
    """Keys below `prefix`. A Redis that is away is a miss, logged once, and never an error."""

    def __init__(self, redis: Redis, prefix: str) -> None:
        self._redis = redis
        self._prefix = prefix
        self._away = False

    async def get(self, key: str) -> Any | None:
        value = await self._try(self._redis.get(self._prefix + key))
        if value is None:
            return None
        try:
            return from_json(value)
        except ValueError:
            logger.warning("a cached value cannot be read and counts as absent", key=key)
            return None

    async def set(self, key: str, value: Any, *, ttl: float | None = None) -> None:
        milliseconds = None if ttl is None else round(ttl * 1000)
        data = to_json(value)
        if milliseconds is not None and milliseconds <= 0:
            await self.delete(key)
        else:
            await self._try(self._redis.set(self._prefix + key, data, px=milliseconds))

    async def delete(self, *keys: str) -> None:
        if keys:
            await self._try(self._redis.delete(*(self._prefix + key for key in keys)))

    async def _try(self, command: Awaitable[T]) -> T | None:
        try:
            answer = await command
        except (RedisError, OSError) as exc:
            if not self._away:
                logger.error("Redis cannot be reached: going on without a cache", error=type(exc).__name__)
            self._away = True
            return None
        if self._away:
            logger.info("the cache is back")
            self._away = False
        return answer
