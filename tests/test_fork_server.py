"""A program of the fork server cannot tell that it was forked."""

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.fork_server import Forked
from tests.processes import kill, run, started, wait_for

PROGRAM = """
import json, logging, os, random, signal, sys, threading, warnings

said = {
    "argv": sys.argv, "path": sys.path, "folder": os.getcwd(), "filters": [str(each[:3]) for each in warnings.filters],
    "environment": {name: value for name, value in os.environ.items() if name not in ("LC_CTYPE", "PYTHONHASHSEED")},
    "main": [__name__, __spec__.name, __package__, sys.modules["__main__"].__file__],
    "files": sorted(os.listdir("/proc/self/fd")), "handlers": logging.root.handlers,
    "signals": [str(signal.getsignal(each)) for each in signal.valid_signals()], "app": "app.core" in sys.modules,
    "threads": len(threading.enumerate()), "session": os.getsid(0) == os.getpid(),
    "given": sys.stdin.read(), "terminal": sys.stdout.isatty(),
}
print(json.dumps(said))
print("an error", file=sys.stderr)
print(random.random(), file=open("random", "a"))
if "wait" in sys.argv:
    open("waiting", "w").close()
    signal.pause()
sys.exit(7)
"""
COMMAND = (sys.executable, "-m", "app.cli")
pytestmark = pytest.mark.once


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "app" / "cli").mkdir(parents=True)
    for name, text in {"__init__.py": "", "cli/__init__.py": "", "cli/__main__.py": PROGRAM}.items():
        (tmp_path / "app" / name).write_text(text)
    return {"PATH": os.environ["PATH"], "PYTHONPATH": "/nowhere", "FRESH": "yes"}


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="lists open files as Linux does")
def test_it_starts_as_a_fresh_interpreter_does(tmp_path: Path, env: dict[str, str]) -> None:
    forked, again, fresh = (
        run(*COMMAND, "one", "--two", cwd=tmp_path, env=env | more, given="by hand")
        for more in ({}, {}, {"PYTHONHASHSEED": "random"})
    )
    assert (forked.returncode, forked.stderr) == (fresh.returncode, fresh.stderr) == (7, "an error\n")
    assert json.loads(forked.stdout) == json.loads(again.stdout) == json.loads(fresh.stdout)
    assert len(set((tmp_path / "random").read_text().splitlines())) == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_it_ends_by_signals(tmp_path: Path, env: dict[str, str], number: int) -> None:
    with started(*COMMAND, "wait", cwd=tmp_path, env=env, log=tmp_path / "log") as process:
        assert isinstance(process, Forked)
        wait_for(lambda: (tmp_path / "waiting").exists() or process.poll() is not None)
        assert process.poll() is None
        assert os.getpgid(process.pid) == process.pid
        process.send_signal(number)
        assert process.wait(timeout=60) == process.poll() == -number
        kill(process)
