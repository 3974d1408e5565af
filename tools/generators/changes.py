"""Files to make, change and delete: all of them or none."""

import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

from tools.generators.errors import GeneratorError

CACHES = ("__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache")


class Changes:
    """What a command is going to do to the files below `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.made: dict[Path, str] = {}
        self.changed: dict[Path, str] = {}
        self.deleted: list[Path] = []
        self._before: dict[Path, bytes | None] = {}
        self._folders: list[Path] = []

    def make(self, path: Path, text: str) -> None:
        """Write a file that should not be there yet."""
        self.made[path] = text

    def change(self, path: Path, text: str) -> None:
        """Write a file that is there."""
        self.changed[path] = text

    def delete(self, path: Path) -> None:
        """Remove a file."""
        self.deleted.append(path)

    def text_of(self, path: Path) -> str:
        """What the file holds, these changes included; nothing where there is none."""
        for texts in (self.changed, self.made):
            if path in texts:
                return texts[path]
        return path.read_text(encoding="utf-8") if path.is_file() else ""

    def refuse_overwriting(self) -> None:
        """GeneratorError where a file to be made is there."""
        if taken := [self.shown(path) for path in self.made if path.exists()]:
            verb = "is" if len(taken) == 1 else "are"
            raise GeneratorError(f"{', '.join(taken)} {verb} there already: --force overwrites")

    def shown(self, path: Path) -> str:
        """The path as people type it."""
        return str(path.relative_to(self.root) if path.is_relative_to(self.root) else path)

    def tree(self) -> list[str]:
        """One line for each file."""
        return [
            *(f"make    {self.shown(path)}" for path in sorted(self.made)),
            *(f"change  {self.shown(path)}" for path in sorted(self.changed)),
            *(f"delete  {self.shown(path)}" for path in sorted(self.deleted)),
        ]

    @contextmanager
    def applied(self, *watched: Path) -> Iterator[None]:
        """Write, run the block, and put everything back where either fails or is interrupted.

        `watched` are files the block itself may change, and folders it may add files to.
        """
        with _interruptible():
            listed = {path: set(path.iterdir()) if path.is_dir() else set() for path in watched if not path.is_file()}
            try:
                for path in watched:
                    if path.is_file():
                        self._remember(path)
                self._write()
                yield
            except BaseException:
                self._undo()
                for folder, before in listed.items():
                    _forget_new(folder, before)
                raise

    def _write(self) -> None:
        for path, text in (self.made | self.changed).items():
            self._remember(path)
            self._open_folder(path.parent)
            path.write_text(text, encoding="utf-8")
        for path in self.deleted:
            self._remember(path)
            path.unlink()

    def _remember(self, path: Path) -> None:
        self._before.setdefault(path, path.read_bytes() if path.is_file() else None)

    def _open_folder(self, folder: Path) -> None:
        if not folder.is_dir():
            self._open_folder(folder.parent)
            folder.mkdir()
            self._folders.append(folder)

    def _undo(self) -> None:
        for path, content in self._before.items():
            if content is None:
                path.unlink(missing_ok=True)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        for folder in reversed(self._folders):
            remove_empty(folder)


def is_kept(path: Path) -> bool:
    """Whether this is a file, and none that a tool left there."""
    return path.is_file() and not any(part in CACHES or part.endswith(".egg-info") for part in path.parts)


def remove_empty(folder: Path) -> None:
    """Remove a folder that holds no more than what tools left there."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.name in CACHES or path.suffix == ".egg-info":
            shutil.rmtree(path)
    for path in sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True):
        with suppress(OSError):
            path.rmdir()
    with suppress(OSError):
        folder.rmdir()


def _forget_new(folder: Path, before: set[Path]) -> None:
    for path in set(folder.iterdir()) - before if folder.is_dir() else ():
        if path.is_file():
            path.unlink()
    if not before and folder.is_dir():
        remove_empty(folder)
        remove_empty(folder.parent)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Have SIGTERM raise, so that what was begun is undone."""

    def stop(number: int, _frame: FrameType | None) -> NoReturn:
        sys.exit(128 + number)

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
