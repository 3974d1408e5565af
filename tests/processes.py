"""What tests of whole processes use."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from dotenv import dotenv_values

from app.core.configs import PROJECT_ROOT
from tests.conftest import backend

BIN = Path(sys.executable).parent


def environment(folder: Path, **settings: str) -> dict[str, str]:
    """The environment of a process that knows no settings but the given, with its data in `folder`."""
    names = dotenv_values(PROJECT_ROOT / ".sample.env").keys()
    kept = {key: value for key, value in os.environ.items() if key not in names}
    return {**kept, "ENV_FILE": os.devnull, "VAR_DIR": str(folder / "var"), **settings}


@contextmanager
def served_settings() -> Iterator[dict[str, str]]:
    """Settings that name a fresh database and the stores of this half of the tests."""
    url = backend.copy()
    own = backend.environment()
    try:
        yield {
            "DATABASE_URL": url.render_as_string(hide_password=False),
            "REDIS_URL": own["REDIS_URL"],
            "REDIS_KEY_PREFIX": f"{own['REDIS_KEY_PREFIX']}{url.database}:" if own["REDIS_URL"] else "",
        }
    finally:
        backend.drop(url)


def kit(*arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    """Run a `kit` command to its end with these settings alone."""
    command = [sys.executable, "-m", "app.cli", *arguments]
    kept = {key: value for key, value in os.environ.items() if key == "PATH" or key.startswith("COVERAGE_")}
    variables = {**kept, "ENV_FILE": os.devnull, **settings}
    return subprocess.run(
        command, cwd=PROJECT_ROOT, env=variables, capture_output=True, text=True, timeout=60, check=False
    )


@contextmanager
def started(
    *command: str, env: Mapping[str, str], log: Path, cwd: Path = PROJECT_ROOT
) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that runs while the block does, its output in `log`."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=cwd, env=dict(env), stdout=output, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)


def wait_for(condition: Callable[[], object], seconds: float = 30) -> None:
    """Until `condition` holds; an AssertionError where it does not in time."""
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, "waited in vain"
        time.sleep(0.05)
