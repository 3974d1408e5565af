"""Limits that a service counts itself, for whatever a key names: an account, a session, a mailbox."""

from hashlib import sha256

from pyrate_limiter import Rate

from app.core.api.sliding_windows import SlidingWindows, Verdict, counter
from app.core.metrics import refusals


class Throttle:
    """At most so many calls for one key in so many seconds, in several windows at once: delays that grow.

        logins = Throttle("logins", (3, 30), (5, 900))
        (await logins.count("ann")).require()  # a RateLimitedError for the fourth in 30 s and the sixth in 900 s

    Counts as ConfigurableRateLimiter does, shared through Redis where there is one; keys are stored as hashes.
    Whether limits are enabled is for the caller to know.
    """

    def __init__(self, name: str, *limits: tuple[int, int]) -> None:
        self._name = name
        self.windows = SlidingWindows(*(Rate(times, seconds * 1000) for times, seconds in limits))

    async def count(self, key: str) -> Verdict:
        """Count one more call."""
        verdict = await counter.count(self.windows, self._stored(key))
        if not verdict.allowed:
            refusals.inc(self._name)
        return verdict

    async def give_back(self, key: str) -> None:
        """Take back the latest call that was counted."""
        await counter.count(self.windows, self._stored(key), weight=-1)

    def _stored(self, key: str) -> str:
        return f"{self._name}:{sha256(key.encode('utf-8', 'replace')).hexdigest()}"
