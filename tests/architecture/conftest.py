"""A small house to plant breaches in."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tools.boundaries import boundary_violations

Plant = Callable[[dict[str, str]], list[str]]

HOUSE = {
    "core/db.py": """
from sqlalchemy.orm import DeclarativeBase

class Base(DeclarativeBase):
    pass
""",
    "core/models.py": "MODELS = []",
    "main.py": "",
    "shop/module.toml": 'depends_on = ["app.till"]',
    "shop/schemas.py": "class Order: ...",
    "shop/services.py": "def sell(): ...",
    "till/module.toml": "",
    "till/__init__.py": "from app.till.schemas import Sum",
    "till/schemas.py": "class Sum: ...",
    "till/deps.py": "class Till: ...",
    "till/models.py": """
from sqlalchemy.orm import Mapped, mapped_column
from app.core.db import Base

class Coin(Base):
    __tablename__ = "till_coins"
    id: Mapped[int] = mapped_column(primary_key=True)
""",
}


@pytest.fixture
def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Plant]:
    """Build the house, called `app` in its files, with these files instead; give back its violations."""
    package = f"house{abs(hash(tmp_path))}"
    monkeypatch.syspath_prepend(tmp_path)

    def build(files: dict[str, str]) -> list[str]:
        for name, text in {**HOUSE, **files}.items():
            path = tmp_path / package / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.replace("app.", f"{package}.").replace("from app ", f"from {package} "))
            for folder in path.relative_to(tmp_path).parents:
                if folder.name and not folder.name.startswith("bare"):
                    (tmp_path / folder / "__init__.py").touch()
        return [str(found).replace(package, "app") for found in boundary_violations(package, tmp_path)]

    yield build
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        del sys.modules[name]
