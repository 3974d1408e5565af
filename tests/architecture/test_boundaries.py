"""The boundaries hold, and a breach of each would be seen."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.core.configs import PROJECT_ROOT
from tests.architecture.rules import violations

Plant = Callable[[dict[str, str]], list[str]]


def test_the_house_has_no_breach() -> None:
    assert [str(violation) for violation in violations("app", PROJECT_ROOT)] == []


@pytest.fixture
def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Plant]:
    """Build a small house with the given files and give back its violations."""
    package = f"house{abs(hash(tmp_path))}"
    monkeypatch.syspath_prepend(tmp_path)

    def build(files: dict[str, str]) -> list[str]:
        clean = dict.fromkeys(
            ("core/models.py", "core/db.py", "shop/services.py", "shop/schemas.py", "till/deps.py"), ""
        )
        for name, text in {**clean, "main.py": "", **files}.items():
            path = tmp_path / package / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.replace("app", package))
            for folder in [path.parent, *path.parent.parents]:
                if folder == tmp_path:
                    break
                (folder / "__init__.py").touch()
        return [str(found).replace(package, "app") for found in violations(package, tmp_path)]

    yield build
    sys.modules.pop(package, None)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("core/db.py", "from app.shop import services", "core imports shop"),
        ("core/db.py", "def f() -> None:\n    import app.shop as hidden", "core imports shop"),
        ("core/db.py", "from ..shop import schemas", "core imports shop"),
        ("shop/services.py", "import app.main", "imports the entry point main"),
        ("shop/services.py", "from app.core.models import MODELS", "imports core's registry"),
        ("shop/services.py", "from app.till.deps import Till", "from the root package of till"),
        ("shop/services.py", "def f() -> None:\n    from ..till import deps", "from the root package of till"),
        ("main.py", "import app.shop.services as s", "from the root package of shop"),
        ("shop/schemas.py", "from app.shop.services import sell", "schemas imports services, a layer above it"),
        ("shop/events.py", "from .schemas import Sold", "events is a leaf and imports the layer schemas"),
    ],
)
def test_a_breach_is_found_and_named(plant: Plant, file: str, text: str, message: str) -> None:
    (found,) = plant({file: text})
    assert message in found
    assert found.startswith(f"app/{file}:{text.count(chr(10)) + 1}:")


def test_what_is_allowed_is_not_found(plant: Plant) -> None:
    allowed = {
        "main.py": "from app.core import models\nfrom app.shop import Sold",
        "shop/services.py": "from app.core.db import x\nfrom app.till import Till\nfrom app.shop.schemas import y",
        "shop/__init__.py": "from app.shop.schemas import Sold",
    }
    assert plant(allowed) == []
