"""How much the in-process stores hold after very many keys; `python -m benchmarks.memory 1000000` prints JSON."""

import asyncio
import json
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from app.core.api.sliding_windows import windows_of
from app.core.services.cache import CacheService, MemoryStore


def resident_mib(pid: int | str = "self") -> float:
    """The memory a process holds now."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


async def fill(keys: int, add: Callable[[int], Awaitable[None]]) -> dict[str, float]:
    """What `keys` distinct keys cost: memory after a tenth of them and after all, and time for each."""
    before = resident_mib()
    begun = time.perf_counter()
    after_tenth = before
    for number in range(keys):
        await add(number)
        if number == keys // 10:
            after_tenth = resident_mib()
    return {
        "mib_after_tenth": round(after_tenth - before, 1),
        "mib_after_all": round(resident_mib() - before, 1),
        "us_per_key": round((time.perf_counter() - begun) / keys * 1e6, 1),
    }


async def main(keys: int) -> None:
    """Fill the limiter's windows and the cache."""
    limit = windows_of(5, 60_000)
    cache = CacheService(MemoryStore(max_items=10_000))

    async def call(number: int) -> None:
        limit.count(limit.wrap_item(f"auth.login:5/60000:10.{number >> 16}.{number >> 8 & 255}.{number & 255}"))

    async def keep(number: int) -> None:
        await cache.set(f"users:{number}", {"id": number, "username": f"user{number}"}, ttl=60)

    limiter = {**await fill(keys, call), "kept": len(limit)}
    cached = {**await fill(keys, keep), "kept": 10_000}
    print(json.dumps({"keys": keys, "limiter": limiter, "cache": cached}))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
