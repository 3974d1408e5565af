"""A clone of the project that commands may write into."""

import shutil
import subprocess
import sys
from pathlib import Path

from app.core.configs import PROJECT_ROOT
from tests import processes
from tests.planted import PlantedProject


def _listed() -> list[str]:
    """What git has, as it is now; without git everything that is not generated."""
    done = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        return [name for name in done.stdout.splitlines() if (PROJECT_ROOT / name).is_file()]
    left_out = {"__pycache__", ".venv", "var", ".env", ".mypy_cache", ".pytest_cache", ".ruff_cache"}
    found = [path.relative_to(PROJECT_ROOT) for path in PROJECT_ROOT.rglob("*") if path.is_file()]
    return [str(path) for path in found if not left_out & set(path.parts)]


class Clone(PlantedProject):
    """The working tree, committed to a repository of its own; its `.venv` is the one in use."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "clone"
        self.settings: dict[str, str] = {}
        self.site: Path | None = None
        for name in _listed():
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(PROJECT_ROOT / name, self.folder / name, follow_symlinks=False)
        self._take_over_types()
        (self.folder / ".venv").symlink_to(Path(sys.executable).parents[1])
        self.run("git", "init", "--quiet")
        self.commit()

    def _take_over_types(self) -> None:
        """What mypy knows of the libraries: without it the check of each clone reads them all anew."""
        for folder in (".", "examples/shop_reviews"):
            cache = PROJECT_ROOT / folder / ".mypy_cache"
            if cache.is_dir():
                shutil.copytree(cache, self.folder / folder / ".mypy_cache")

    def environment(self, **settings: str) -> dict[str, str]:
        """As planted, with the packages in `site`."""
        found = super().environment(**settings)
        return found | {"PYTHONPATH": f"{self.folder}:{self.site}"} if self.site else found

    def commit(self) -> None:
        """Have git know everything as it is."""
        self.run("git", "add", "--all")
        identity = ("-c", "user.name=Test", "-c", "user.email=test@example.com")
        self.run("git", *identity, "commit", "--quiet", "--allow-empty", "--message", "state")

    def changes(self) -> list[str]:
        """What `git status` lists."""
        return self.run("git", "status", "--porcelain").splitlines()

    def run(self, *command: str, timeout: float = 240, **settings: str) -> str:
        """What a command in there says; it must end well."""
        done = processes.run(*command, cwd=self.folder, env=self.environment(**settings), timeout=timeout)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-8000:]}\n{done.stderr[-4000:]}"
        return done.stdout

    def python(self, *arguments: str, timeout: float = 240, **settings: str) -> str:
        """What Python says in there."""
        return self.run(sys.executable, *arguments, timeout=timeout, **settings)

    def made(self, *arguments: str) -> str:
        """What a `kit` command says; it must end well."""
        return self.python("-m", "app.cli", *arguments)

    def refused(self, *arguments: str) -> str:
        """The one line of a `kit` command that must fail."""
        done = self.kit(*arguments)
        assert (done.returncode, done.stdout) == (1, ""), done.stdout
        assert done.stderr.count("\n") == 1, done.stderr
        return done.stderr.rstrip("\n")
