"""`kit --help` and the completion of shells: both answer without the framework."""

import os
import subprocess
import sys

import pytest

from app.core.configs import PROJECT_ROOT

# Run with the same arguments as kit; says what was imported.
PROGRAM = """
import sys
from app.cli import app
try:
    app(prog_name="kit")
finally:
    heavy = {"fastapi", "starlette", "pydantic", "sqlalchemy", "alembic", "redis", "structlog", "taskiq", "jinja2"}
    print("imported:", *sorted(heavy & sys.modules.keys()))
"""


def answer(*arguments: str, may_import: str = "", **variables: str) -> str:
    """What kit said; it must not have imported more than that."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=PROJECT_ROOT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.stderr == ""
    said, _, imported = done.stdout.rpartition("imported:")
    assert set(imported.split()) <= {may_import}
    return said


def test_the_help_imports_no_framework() -> None:
    said = answer("--help")
    for name in ("run", "migrate", "module", "routes", "doctor", "secrets", "users"):
        assert name in said


def complete(words: str) -> list[str]:
    """What follows in a shell. Typer needs pydantic for it."""
    number = str(len(words.split(" ")) - 1)
    return answer(may_import="pydantic", _KIT_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=number).split()


def test_names_are_completed() -> None:
    assert complete("kit us") == ["users"]
    options = complete("kit routes --")
    assert {"--path", "--method", "--json"} <= set(options)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_is_told_how(shell: str) -> None:
    said = answer("--show-completion", shell, may_import="pydantic", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert "_KIT_COMPLETE" in said
