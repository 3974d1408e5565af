"""What the API document promises is what a running service does."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy.engine import URL

from app.cli.run import answers
from app.core.configs import PROJECT_ROOT
from tests.fuzz.conftest import SEED, THOROUGH, Progress
from tests.processes import BIN, environment, served_settings, started, wait_for

ADMIN = {"FIRST_USER_EMAIL": "admin@example.com", "FIRST_USER_PASSWORD": "a password of the fuzzer"}
PHASES = "examples,coverage,fuzzing,stateful" if THOROUGH else "coverage,fuzzing"
EXAMPLES = 100 if THOROUGH else 3


def test_the_document_is_kept(template: URL, tmp_path: Path, progress: Progress) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with served_settings() as settings:
        env = environment(tmp_path, PORT=str(port), RATE_LIMITER_ENABLED="false", **ADMIN, **settings)
        log = tmp_path / "service.log"
        with started(sys.executable, "-m", "app.cli", "run", env=env, log=log) as service:
            wait_for(lambda: answers("127.0.0.1", port) or service.poll() is not None)
            progress.say(f"phases {PHASES}")
            done = schemathesis(f"http://127.0.0.1:{port}")
    (tmp_path / "schemathesis.log").write_text(done.stdout)
    if done.returncode:
        pytest.fail(f"{done.stdout[-20_000:]}\n{done.stderr[-2_000:]}", pytrace=False)
    progress.say(done.stdout.strip().splitlines()[-1])
    assert "Traceback" not in log.read_text()


def schemathesis(url: str) -> "subprocess.CompletedProcess[str]":
    """Run it against the service at `url`."""
    command = (
        *(str(BIN / "schemathesis"), "--config-file", str(Path(__file__).with_name("schemathesis.toml"))),
        *("--no-color", "run", f"{url}/openapi.json", "--continue-on-failure"),
        *("--phases", PHASES, "--max-examples", str(EXAMPLES), "--seed", str(SEED)),
        *("--generation-database", "none", "--exclude-checks", "positive_data_acceptance"),
    )
    env = {
        **os.environ,
        "PYTHONPATH": str(PROJECT_ROOT),
        "SCHEMATHESIS_HOOKS": "tests.fuzz.openapi_hooks",
        "FUZZ_URL": url,
        "FUZZ_EMAIL": ADMIN["FIRST_USER_EMAIL"],
        "FUZZ_PASSWORD": ADMIN["FIRST_USER_PASSWORD"],
    }
    return subprocess.run(command, cwd=PROJECT_ROOT, env=env, capture_output=True, text=True, timeout=1200, check=False)
