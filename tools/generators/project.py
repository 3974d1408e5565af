"""Carry out what was planned: all or nothing, formatted, with the documents of the project written again."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from app.core.configs import PROJECT_ROOT, get_settings
from tools.generators.changes import Changes, GeneratorError
from tools.generators.source import tidy

DOCUMENTS = tuple(PROJECT_ROOT / "docs" / name for name in ("openapi.json", "module-map.md"))
"""Written from the code."""


class Record:
    """The files that the generators wrote, with a hash of their content: these may be deleted without a question."""

    def __init__(self) -> None:
        self._path = get_settings().var_dir / "generated.json"
        try:
            self._hashes: dict[str, str] = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            self._hashes = {}

    def is_untouched(self, path: Path) -> bool:
        """Return True if the file is as it was generated."""
        return self._hashes.get(str(path.relative_to(PROJECT_ROOT))) == _hash(path)

    def update(self, written: Iterable[Path], deleted: Iterable[Path]) -> None:
        """Remember the files as they are now, and forget those that are gone."""
        self._hashes |= {str(path.relative_to(PROJECT_ROOT)): _hash(path) for path in written}
        for path in deleted:
            self._hashes.pop(str(path.relative_to(PROJECT_ROOT)), None)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(json.dumps(self._hashes, indent=1, sort_keys=True), encoding="utf-8")


def carry_out(changes: Changes, finish: Callable[[], Iterable[Path]], *watched: Path) -> None:
    """Write, format and finish, or undo it all; `finish` returns files that it wrote below `watched`."""
    record = Record()
    ours = [path for path in changes.changed if record.is_untouched(path)]
    with changes.applied(*DOCUMENTS, *watched):
        tidy([*changes.made, *changes.changed], changes.root)
        further = finish()
    record.update([*changes.made, *ours, *further], changes.deleted)


def write_documents(*revision: str) -> list[Path]:
    """Write the documents again, and before them a revision where its message, timeline and table are given.

    In a process of its own, as this one may have loaded the code of before; and with the settings of the test suite,
    as a developer's .env must not end up in a document.
    """
    command = [sys.executable, "-m", "tools.generators.finish", *revision]
    env = os.environ | {"ENVIRONMENT": "testing"}
    done = subprocess.run(command, cwd=PROJECT_ROOT, env=env, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or [f"exit code {done.returncode}"]
        raise GeneratorError(said[-1])
    return [Path(line) for line in done.stdout.splitlines() if line]


def is_in_git(path: Path) -> bool:
    """Return True if git tracks the file: others may have it too."""
    return bool(_git("ls-files", "--", str(path)))


def is_kept_by_git(path: Path) -> bool:
    """Return True if git has the file as it is, so that deleting it loses nothing."""
    return is_in_git(path) and not _git("status", "--porcelain", "--", str(path))


def _git(*arguments: str) -> str:
    """The output of git; empty where there is no git, or no repository."""
    try:
        command = ["git", *arguments]
        return subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, check=False).stdout  # noqa: S603
    except OSError:
        return ""


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
