"""The project that is generated into: its modules, its documents, and what was generated so far."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from app.core.configs import PROJECT_ROOT, get_settings
from app.core.modules import Module, present_modules
from tools.generators.changes import Changes
from tools.generators.errors import GeneratorError
from tools.generators.source import check_tools, tidy

DOCUMENTS = {"openapi.json": ("openapi",), "module-map.md": ("module", "docs")}
"""What is written from the code, and by which command."""


def module_named(name: str) -> Module:
    """The module in the folder `name`; GeneratorError where there is none."""
    modules = {module.short_name: module for module in present_modules()}
    if name not in modules:
        known = ", ".join(modules) or "none"
        raise GeneratorError(f"there is no module {name}; there are {known}. To make it: kit module new {name}")
    return modules[name]


def document_paths() -> list[Path]:
    """The documents of this project that are written from its code."""
    return [path for name in DOCUMENTS if (path := PROJECT_ROOT / "docs" / name).is_file()]


def write_documents() -> None:
    """Write them again, each by its own command, as this process has loaded the code of before."""
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda path: kit(*DOCUMENTS[path.name]), document_paths()))


def kit(*arguments: str) -> str:
    """What another `kit` command prints; GeneratorError with what it says where it fails."""
    command = [sys.executable, "-m", "app.cli", *arguments]
    done = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or [f"exit code {done.returncode}"]
        raise GeneratorError(f"kit {' '.join(arguments)}: {said[-1]}")
    return done.stdout


def is_in_git(path: Path) -> bool:
    """Whether git knows the file: others may have it too."""
    return bool(_git("ls-files", "--", str(path)))


def is_kept_by_git(path: Path) -> bool:
    """Whether git has the file as it is, so that deleting it loses nothing."""
    return is_in_git(path) and not _git("status", "--porcelain", "--", str(path))


def _git(*arguments: str) -> str:
    """What git says; nothing where there is no git, or no repository."""
    try:
        command = ["git", *arguments]
        return subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, check=False).stdout  # noqa: S603
    except OSError:
        return ""


class Record:
    """Which files the generators wrote, and with what content: what may be deleted again without a question."""

    def __init__(self) -> None:
        self._path = get_settings().var_dir / "generated.json"
        try:
            self._hashes: dict[str, Any] = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            self._hashes = {}

    def is_untouched(self, path: Path) -> bool:
        """Whether the file is as it was generated."""
        return self._hashes.get(_name(path)) == _hash(path)

    def add(self, paths: Iterable[Path]) -> None:
        """Remember these files as they are now."""
        self._hashes |= {_name(path): _hash(path) for path in paths}
        self._store()

    def forget(self, paths: Iterable[Path]) -> None:
        """These are gone."""
        for path in paths:
            self._hashes.pop(_name(path), None)
        self._store()

    def _store(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(json.dumps(self._hashes, indent=1, sort_keys=True), encoding="utf-8")


@contextmanager
def carried_out(changes: Changes, *watched: Path, documents: bool = True) -> Iterator[list[Path]]:
    """Do all of it or nothing, formatted, with the documents written again; the block adds files it makes itself."""
    check_tools()
    record = Record()
    ours = [path for path in changes.changed if record.is_untouched(path)]
    with changes.applied(*document_paths(), *watched):
        tidy([*changes.made, *changes.changed], changes.root)
        further: list[Path] = []
        yield further
        if documents:
            write_documents()
    record.add([*changes.made, *ours, *further])
    record.forget(changes.deleted)


def _name(path: Path) -> str:
    return str(path.relative_to(PROJECT_ROOT))


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
