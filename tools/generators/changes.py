"""Files to make, change and delete: all of them or none."""

import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

CACHES = ("__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache")


class GeneratorError(Exception):
    """The command cannot do this; the message is for the person who typed it."""


@dataclass
class Changes:
    """The files below `root` that a command is going to make, change and delete."""

    root: Path
    made: dict[Path, str] = field(default_factory=dict)
    changed: dict[Path, str] = field(default_factory=dict)
    deleted: list[Path] = field(default_factory=list)

    def text_of(self, path: Path) -> str:
        """The content of the file, these changes included; empty where there is none."""
        planned = self.made | self.changed
        return planned[path] if path in planned else path.read_text(encoding="utf-8") if path.is_file() else ""

    def refuse_overwriting(self) -> None:
        """GeneratorError where a file to be made exists."""
        if taken := [self.shown(path) for path in self.made if path.exists()]:
            verb = "is" if len(taken) == 1 else "are"
            raise GeneratorError(f"{', '.join(taken)} {verb} there already: --force overwrites")

    def shown(self, path: Path) -> str:
        """The path as people type it."""
        return str(path.relative_to(self.root) if path.is_relative_to(self.root) else path)

    def tree(self) -> list[str]:
        """One line for each file."""
        groups = (("make  ", self.made), ("change", self.changed), ("delete", self.deleted))
        return [f"{verb}  {self.shown(path)}" for verb, paths in groups for path in sorted(paths)]

    @contextmanager
    def applied(self, *watched: Path) -> Iterator[None]:
        """Write, run the block, and restore everything where either fails or is interrupted.

        `watched` are files that the block may change, and folders that it may add files to.
        """
        touched = {*self.made, *self.changed, *self.deleted, *_files(watched)}
        before = {path: path.read_bytes() if path.is_file() else None for path in touched}
        opened = {
            folder for path in (*self.made, *(one / "any" for one in watched)) if (folder := _first_missing(path))
        }
        previous = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
        try:
            for path, text in (self.made | self.changed).items():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
            for path in self.deleted:
                path.unlink()
            yield
        except BaseException:
            _restore(dict.fromkeys(_files(watched)) | before)
            for folder in opened:
                remove_empty(folder)
            raise
        finally:
            signal.signal(signal.SIGTERM, previous)


def is_kept(path: Path) -> bool:
    """Return True for a file, except one that a tool left there."""
    return path.is_file() and not any(part in CACHES or part.endswith(".egg-info") for part in path.parts)


def remove_empty(folder: Path) -> None:
    """Remove a folder that holds no more than what tools left there."""
    for path in (*sorted(folder.rglob("*"), reverse=True), folder):
        if path.name in CACHES or path.suffix == ".egg-info":
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.rmdir()


def _files(places: tuple[Path, ...]) -> list[Path]:
    return [path for place in places for path in (place, *place.rglob("*")) if path.is_file()]


def _first_missing(path: Path) -> Path | None:
    """The topmost folder that writing the file would make, if any."""
    return next((folder for folder in reversed(path.parents) if not folder.exists()), None)


def _restore(contents: dict[Path, bytes | None]) -> None:
    for path, content in contents.items():
        if content is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        elif path.is_file():
            path.unlink()
