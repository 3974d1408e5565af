"""Circuit breaker: stop calling a service that keeps failing, and probe it later."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from app.core.exceptions import UpstreamError, UpstreamUnavailable
from app.core.services.log import logger


class CircuitBreaker:
    """Opens after `failures` outages in a row; `seconds` later it admits one probe, which closes or reopens it."""

    def __init__(self, name: str, failures: int, seconds: float) -> None:
        self._name = name
        self._limit = failures
        self._seconds = seconds
        self._failures = 0
        self._opened_at: float | None = None
        self._probing = False

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Run the block and record its outcome; raises UpstreamUnavailable while the circuit is open."""
        is_probe = self._admit()
        try:
            yield
        except UpstreamError as exc:
            if exc.is_outage or exc.status:
                self._note(exc.is_outage, is_probe)
            raise
        else:
            self._note(False, is_probe)
        finally:  # a probe without an outcome, as when it is cancelled: the next attempt probes
            self._probing = self._probing and not is_probe

    def _admit(self) -> bool:
        """Return True if this attempt is the probe; raises UpstreamUnavailable if the circuit does not admit it."""
        if self._opened_at is None:
            return False
        wait = self._opened_at + self._seconds - time.monotonic()
        if wait > 0 or self._probing:
            raise UpstreamUnavailable(retry_after=max(1, math.ceil(wait)))
        self._probing = True
        return True

    def _note(self, is_outage: bool, is_probe: bool) -> None:
        if self._opened_at is not None and not is_probe:
            return  # it began before the circuit opened
        if not is_outage:
            if is_probe:
                logger.info("circuit closed: the service answers again", integration=self._name)
            self._failures, self._opened_at = 0, None
            return
        self._failures += 1
        if is_probe or self._failures >= self._limit:
            if not is_probe:
                logger.error("circuit opened: the service keeps failing", integration=self._name)
            self._opened_at = time.monotonic()
