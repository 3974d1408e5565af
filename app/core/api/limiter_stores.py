"""Where limits are counted: in Redis while it answers, in this process while it does not."""

import asyncio
import time

from pyrate_limiter import RateItem
from redis.exceptions import RedisError

from app.core.api.limiter_windows import Verdict, Windows
from app.core.configs.app import current_settings
from app.core.db.installation import current_key_prefix, current_redis
from app.core.services.log import logger

REDIS_PAUSE = 1.0
"""For how many seconds Redis is not asked again after it did not answer."""


class Stores:
    """Redis while it answers, this process while it does not.

    What Redis admits is counted here too, so that a Redis that goes away, or is only slow for some of the
    calls, does not hand out the limit a second time.
    """

    def __init__(self) -> None:
        self._away = False
        self._counted_alone_at = float("-inf")
        self._ask_again = float("-inf")

    async def decide(self, limit: Windows, key: str) -> Verdict:
        """Whether one more call fits."""
        item = limit.wrap_item(key)
        shared = await self._ask_redis(limit, item)
        if shared is not None and not shared.allowed:
            return shared
        own = limit.admit(item)
        now = time.monotonic()
        if shared is None:
            self._counted_alone_at = now
        # Both may differ at the edge of a window, by the delay of the network: Redis counts, unless it lacks calls.
        complete = now - self._counted_alone_at >= limit.rate.interval / 1000
        return shared if shared is not None and complete else own

    async def _ask_redis(self, limit: Windows, item: RateItem) -> Verdict | None:
        redis, settings, now = current_redis(), current_settings(), time.monotonic()
        if redis is None or now < self._ask_again:
            return None
        if self._away:
            self._ask_again = now + REDIS_PAUSE  # one call finds out for all
        try:
            async with asyncio.timeout(settings.RATE_LIMITER_TIMEOUT_SECONDS):
                prefix = await current_key_prefix().get()
                verdict = await limit.admit_shared(item, redis, f"{prefix}limit:")
        except (RedisError, OSError) as exc:
            self._ask_again = time.monotonic() + REDIS_PAUSE
            self._note(exc)
            return None
        self._ask_again = float("-inf")
        self._note(None)
        return verdict

    def _note(self, failure: Exception | None) -> None:
        """Log a change, and only a change."""
        if failure and not self._away:
            error = str(failure) or type(failure).__name__
            logger.warning("limits are counted per process: Redis does not answer", error=error)
        elif self._away and not failure:
            logger.info("limits are shared through Redis again")
        self._away = failure is not None
