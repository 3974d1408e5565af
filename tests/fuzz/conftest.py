"""How much is tried, and from which seed. `make test` tries little and always the same; `make fuzz` much and anew.

FUZZ_EXAMPLES   list queries and bodies each, 300 by default
FUZZ_SEED       of both, 1 by default; a failure repeats it
"""

import os
import sys
import time
from collections.abc import Iterator

import pytest

from tests.conftest import backend

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES") or 300)
SEED = int(os.environ.get("FUZZ_SEED") or 1)
THOROUGH = "FUZZ_EXAMPLES" in os.environ

REPLAY = (
    f"again with: TEST_BACKEND={os.environ.get('TEST_BACKEND', 'embedded')} FUZZ_EXAMPLES={EXAMPLES} FUZZ_SEED={SEED}"
)


class Progress:
    """Says how far a long run is, on the terminal itself, and not at all in a short one."""

    def __init__(self, capture: pytest.CaptureFixture[str], what: str) -> None:
        self._capture = capture
        self._what = what
        self._said = time.monotonic()

    def count(self) -> Iterator[int]:
        """The numbers of the examples."""
        for number in range(1, EXAMPLES + 1):
            yield number
            if THOROUGH and (time.monotonic() > self._said + 2 or number == EXAMPLES):
                self.say(f"{number} of {EXAMPLES}")

    def say(self, text: str) -> None:
        """One line, now."""
        self._said = time.monotonic()
        if THOROUGH:
            with self._capture.disabled():
                print(f"  {self._what}, {backend.name.split(',')[0]}, seed {SEED}: {text}", file=sys.stderr, flush=True)


@pytest.fixture
def progress(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> Progress:
    """The progress of this test."""
    return Progress(capsys, request.node.name.removeprefix("test_").replace("_", " "))
