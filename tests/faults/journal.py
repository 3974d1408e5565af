"""What tasks, listeners and routes of these tests did, one line each: it outlives the process that did it."""

from pathlib import Path

from app.core.configs import get_settings


def note(*words: object) -> None:
    """Add a line."""
    path = Journal(get_settings().var_dir).path
    path.parent.mkdir(exist_ok=True)  # nothing else may have needed it
    with path.open("a") as file:
        file.write(" ".join(map(str, words)) + "\n")


class Journal:
    """The lines of a service with its data in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "journal"

    def of(self, what: str) -> list[tuple[str, ...]]:
        """The rest of every line that begins with `what`."""
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        return [tuple(rest) for first, *rest in map(str.split, lines) if first == what]
