"""`kit demo`."""

import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from app.cli.console import fail, load_settings, say
from app.cli.run import answers, listen

BASE_URL = "http://127.0.0.1:8000"
"""The address in the README's commands."""
START_SECONDS = 60.0
WALK_SECONDS = 120.0

# The blocks marked `bash`; what is only shown is marked otherwise.
_BLOCK = re.compile(r"^```bash\n(.*?)^```$", re.DOTALL | re.MULTILINE)
# An answer outside 2xx is a failed command, and a failed command ends the walk.
_PROLOGUE = r"""
set -euo pipefail
curl() { command curl --silent --show-error --fail-with-body --write-out '%{stderr}\n  HTTP %{http_code}\n' "$@"; }
"""


def demo() -> None:
    """Run every call of the README, then those of the docs, against a server of its own, and show the answers."""
    load_settings()
    from app.core.configs import PROJECT_ROOT, BaseConfig

    names = {name for config in BaseConfig.known for name in config.model_fields}
    environment = {key: value for key, value in os.environ.items() if key not in names}
    with tempfile.TemporaryDirectory(prefix="kit-demo-") as folder:
        password = secrets.token_urlsafe(12)
        environment |= {"VAR_DIR": f"{folder}/var", "ENV_FILE": os.devnull}
        environment |= {"FIRST_USER_PASSWORD": password, "ADMIN_PASSWORD": password}
        if error := walk(pages(PROJECT_ROOT), Path(folder), environment):
            fail(error)
    say("Every call of the README works.", fg=typer.colors.GREEN)


def pages(project: Path) -> list[Path]:
    """The README, and the pages of the docs that go on where it ends: modules bring their own."""
    return [project / "README.md", *sorted(project.glob("docs/*.md"))]


def walk(pages: Iterable[Path], folder: Path, environment: Mapping[str, str]) -> str | None:
    """Run the blocks of `pages` in `folder` against a server with `environment`; returns why it failed, or None.

    The blocks find captured mail under `var/` and the first admin's password in ADMIN_PASSWORD.
    """
    with listen("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    blocks = [block for page in pages for block in _BLOCK.findall(page.read_text(encoding="utf-8"))]
    script = _PROLOGUE + "\n".join(map(_shown, blocks))
    script = script.replace(BASE_URL, f"http://127.0.0.1:{port}")
    with _server(folder, {**environment, "HOST": "127.0.0.1", "PORT": str(port)}, port) as is_answering:
        if not is_answering:
            return f"The server did not start:\n{(folder / 'server.log').read_text()}"
        options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stderr": subprocess.STDOUT, "timeout": WALK_SECONDS}
        command = ["bash", "-c", script]
        done = subprocess.run(command, cwd=folder, env=environment, check=False, **options)  # noqa: S603  the README's
    return f"A call failed with exit code {done.returncode}." if done.returncode else None


def _shown(block: str) -> str:
    """`block`, printed before it runs."""
    prompt = typer.style("$ ", fg=typer.colors.BLUE) if sys.stdout.isatty() else "$ "
    shown = prompt + block.rstrip().replace("\n", "\n  ")
    return f"cat <<'KIT_BLOCK'\n\n{shown}\nKIT_BLOCK\n{block}"


@contextmanager
def _server(folder: Path, environment: Mapping[str, str], port: int) -> Iterator[bool]:
    """Run a server for the block; yields whether it answers in time."""
    with (folder / "server.log").open("wb") as log:
        command = [sys.executable, "-m", "app.cli", "run"]
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)  # noqa: S603
    try:
        give_up = time.monotonic() + START_SECONDS
        while not (answering := answers("127.0.0.1", port)) and time.monotonic() < give_up and server.poll() is None:
            time.sleep(0.05)
        yield answering
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=30)
