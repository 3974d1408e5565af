"""Keys of cached functions are the same in every process."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
from app.core.services.cache.decorator import _digest
print(_digest(print, {"user": {"permissions": frozenset({"a:read", "b:read", "c:read", "d:read"})}}, ()))
"""


@pytest.mark.once
def test_a_set_has_no_order() -> None:
    """Texts are hashed differently by each process, and the permissions of a user are a set."""
    digests = set()
    for seed in ("1", "2", "3"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, check=True)
        digests.add(done.stdout)
    assert len(digests) == 1
