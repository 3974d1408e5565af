"""Of those who want the same thing at once, one makes it for all."""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import Generic, TypeVar

T = TypeVar("T")

Keep = Callable[[T, Callable[[], bool]], Awaitable[None]]
"""Keeps what was made; asks, when that is done, whether it still counts."""

PATIENCE = 5.0
"""Seconds to wait for what another caller makes, before making it oneself: that one may wait for a lock of ours."""


class NotShared(Exception):
    """What was made is for the one alone who made it."""


class Flights(Generic[T]):
    """What is being made at the moment."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[asyncio.Future[T], Collection[str]]] = {}

    async def join(self, key: str, tags: Collection[str], make: Callable[[], Awaitable[T]], keep: Keep[T]) -> T:
        """What `make` gave to one of those who join at once, kept by then; what it raised reaches all of them.

        Where that one is cancelled, another takes over. Where it raises NotShared, each makes it alone.
        """
        while opened := self._open.get(key):
            flight, _ = opened
            await asyncio.wait((flight,), timeout=PATIENCE)
            if not flight.done():
                return await make()
            if not flight.cancelled():
                try:
                    return flight.result()
                except NotShared:
                    return await make()
        return await self._lead(key, tags, make, keep)

    def leave(self, concerns: Callable[[str, Collection[str]], object]) -> None:
        """Something has changed: who comes now begins anew, and what is being made is not kept."""
        for key in [key for key, (_, tags) in self._open.items() if concerns(key, tags)]:
            del self._open[key]

    async def _lead(self, key: str, tags: Collection[str], make: Callable[[], Awaitable[T]], keep: Keep[T]) -> T:
        flight: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        opened = self._open[key] = flight, tags
        try:
            made = await make()
            if self._open.get(key) is opened:
                await keep(made, lambda: self._open.get(key) is opened)
            flight.set_result(made)
            return made
        except Exception as exc:
            flight.set_exception(exc)
            flight.exception()  # nobody need be waiting for it
            raise
        finally:
            flight.cancel()
            if self._open.get(key) is opened:
                del self._open[key]
