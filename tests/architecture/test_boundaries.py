"""The boundaries hold, and a breach of each rule would be seen, named and explained."""

import subprocess
import sys

import pytest

from app.core.boundaries import boundary_violations
from app.core.configs import PROJECT_ROOT
from tests.architecture.conftest import Plant


def test_the_house_has_no_breach() -> None:
    assert [str(violation) for violation in boundary_violations()] == []


def test_what_is_allowed_is_not_found(plant: Plant) -> None:
    allowed = {
        "main.py": "from app.core import models\nfrom app.shop import Order",
        "shop/services.py": "from app.core.db import Base\nfrom app.till import Sum\nfrom app.shop import schemas",
        "shop/__init__.py": "from app.shop.schemas import Order",
        "shop/tasks.py": "from app.shop import Order\nimport app.till as till\n\ndef run(): till.Sum",
        "shop/migrations/bare_versions/one.py": "import app.till.models",
    }
    assert plant(allowed) == []


BREACHES = {
    "M1": (
        "shop/services.py",
        {
            "absolute": "from app.till.deps import Till",
            "aliased": "import app.till.deps as d",
            "relative": "from ..till import deps",
            "function-level": "def f():\n    from app.till import deps",
            "for the type checker": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import app.till.deps",
            "by attribute": "import app.till as t\nx = lambda: t.deps.Till",
            "by full name": "import app.till\nx = lambda: app.till.deps.Till",
            "by attribute, relative": "from .. import till\nx = lambda: till.deps.Till",
            "by string": "import importlib\nx = lambda: importlib.import_module('app.till.deps')",
            "by relative string": "from importlib import *\nx = lambda: import_module('..till.deps', 'app.shop')",
            "by builtin": "x = lambda: __import__('app.till.deps')",
        },
        "app.shop.services imports app.till.deps, which is internal to app.till. Fix: import the name from app.till",
    ),
    "M2": (
        "till/deps.py",
        {
            "absolute": "from app.shop import Order",
            "aliased": "import app.shop as s",
            "relative": "from .. import shop",
            "function-level": "def f():\n    import app.shop",
        },
        "app.till.deps imports app.shop, which is not in depends_on of app.till. "
        'Fix: add "app.shop" to depends_on in app/till/module.toml.',
    ),
    "M4": (
        "shop/schemas.py",
        {
            "absolute": "from app.shop.services import sell",
            "aliased": "import app.shop.services as s",
            "relative": "from . import services",
            "function-level": "def f():\n    from .services import sell",
        },
        "app.shop.schemas imports app.shop.services: services is a layer above schemas. Fix: move what both need into",
    ),
    "M5": (
        "core/cache.py",
        {
            "absolute": "from app.shop import services",
            "aliased": "import app.shop.services as hidden",
            "relative": "from ..shop import services",
            "function-level": "def f():\n    import app.shop.services",
        },
        "app.core.cache imports app.shop.services: core uses nothing above it. Fix: turn the arrow round",
    ),
}


@pytest.mark.parametrize(
    ("rule", "file", "text", "message"),
    [
        pytest.param(rule, file, text, message, id=f"{rule} {style}")
        for rule, (file, styles, message) in BREACHES.items()
        for style, text in styles.items()
    ],
)
def test_a_breach_is_found_and_named(plant: Plant, rule: str, file: str, text: str, message: str) -> None:
    found = [one for one in plant({file: text}) if ": M3 " not in one]
    assert len(found) == 1
    assert found[0].startswith(f"app/{file}:{text.count(chr(10)) + 1}: {rule} {message}")


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        (
            "shop/events.py",
            "from .schemas import Order",
            "M4 app.shop.events imports app.shop.schemas: events is a leaf",
        ),
        ("shop/services.py", "import app.shop", "M4 app.shop.services imports app.shop, the root of its own module"),
        ("shop/services.py", "import app.main", "M5 app.shop.services imports app.main, an entry point"),
        ("shop/services.py", "from app.core.models import MODELS", "M5 app.shop.services imports app.core.models, a"),
        ("core/cache.py", "import app.main", "M5 app.core.cache imports app.main"),
        ("main.py", "import app.shop.services as s", "M1 app.main imports app.shop.services, which is internal"),
        ("utils/text.py", "", "M2 app.utils is neither core nor an entry point nor a module"),
        ("shop/bare/text.py", "import app.till.deps", "M1 the file is in no package"),
    ],
)
def test_other_faces_of_the_rules(plant: Plant, file: str, text: str, message: str) -> None:
    (found,) = plant({file: text})
    assert message in found


class TestCircles:
    @pytest.mark.parametrize(
        "text", ["from app.shop import Order", "from .. import shop as s", "def f():\n    import app.shop"]
    )
    def test_one_is_shown_with_both_places(self, plant: Plant, text: str) -> None:
        files = {
            "till/module.toml": 'depends_on = ["app.shop"]',
            "till/deps.py": text,
            "shop/__init__.py": "from app.shop.schemas import Order",
            "shop/services.py": "import app.till",
        }
        line = text.count("\n") + 1
        assert plant(files) == [
            "app/shop/services.py:1: M3 modules use each other in a circle: app.shop > app.till > app.shop "
            f"(the other way at app/till/deps.py:{line}). "
            "Fix: turn one arrow round with an event, or move what both need into one of them."
        ]

    def test_manifests_alone_make_one(self, plant: Plant) -> None:
        files = {
            "till/module.toml": '# why\ndepends_on = ["app.bank"]',
            "bank/module.toml": 'depends_on = ["app.shop"]',
        }
        (found,) = plant(files)
        assert found.startswith("app/bank/module.toml:1: M3 ")
        assert "app.bank > app.shop > app.till > app.bank (the other way at app/shop/module.toml:1, app/till/" in found


MODEL = """
from sqlalchemy import Column, ForeignKey, ForeignKeyConstraint, Integer, Table
from sqlalchemy.orm import Mapped, mapped_column, relationship
from app.core.db import Base

class Order(Base):
    __tablename__ = "shop_orders"
    id: Mapped[int] = mapped_column(primary_key=True)
"""

JOBS = {
    "core/jobs.py": MODEL.replace("shop_orders", "core_jobs").replace("Order", "Job"),
    "core/models.py": "import app.core.jobs",
}


class TestTables:
    @pytest.mark.parametrize(
        ("text", "line", "message"),
        [
            (
                '    coin_id: Mapped[int] = mapped_column(ForeignKey("till_coins.id"))',
                9,
                "app.shop.models.Order.coin_id has a foreign key to till_coins, a table of till. Fix: keep the id",
            ),
            (
                '    __table_args__ = (ForeignKeyConstraint(["id"], ["till_coins.id"]),)',
                8,
                "app.shop.models.Order.id has a foreign key to till_coins",
            ),
            (
                '    gone_id: Mapped[int] = mapped_column(ForeignKey("till_gone.id"))',
                9,
                "app.shop.models.Order.gone_id has a foreign key to till_gone, a table of till",
            ),
            (
                '    coin: Mapped["Coin"] = relationship("Coin", primaryjoin="foreign(Order.id) == Coin.id")',
                9,
                "app.shop.models.Order.coin is a relationship to Coin, a model of till. Fix: keep the id",
            ),
            (
                'links = Table("shop_links", Base.metadata, Column("coin_id", ForeignKey("till_coins.id")))',
                9,
                "app.shop.models.links.coin_id has a foreign key to till_coins",
            ),
            (
                'class Basket(Base):\n    __tablename__ = "baskets"\n    id = mapped_column(Integer, primary_key=True)',
                10,
                "app.shop.models.Basket is the table baskets, whose name does not say that it belongs to shop",
            ),
        ],
    )
    def test_what_leads_into_another_module(self, plant: Plant, text: str, line: int, message: str) -> None:
        (found,) = plant({"shop/models.py": f"{MODEL}{text}\n"})
        assert found.startswith(f"app/shop/models.py:{line}: M6 {message}")

    @pytest.mark.parametrize(
        "text",
        [
            "from app.shop.models import Order",
            "from app.shop import models\nOrder = models.Order",
            "from .schemas import Order as Schema\nfrom .models import Order as Order",
        ],
    )
    def test_an_exported_model(self, plant: Plant, text: str) -> None:
        (found,) = plant({"shop/__init__.py": text, "shop/models.py": MODEL})
        assert ": M6 app.shop exports the model Order. Fix: export a schema" in found

    def test_references_within_a_module_and_to_core_are_free(self, plant: Plant) -> None:
        text = """
    job_id: Mapped[int] = mapped_column(ForeignKey("core_jobs.id"))
    parent_id: Mapped[int] = mapped_column(ForeignKey("shop_orders.id"))
    parent: Mapped["Order"] = relationship(remote_side="Order.id")
"""
        assert plant({**JOBS, "shop/models.py": f"{MODEL}{text}"}) == []

    def test_core_has_none_into_a_module(self, plant: Plant) -> None:
        key = '    coin_id: Mapped[int] = mapped_column(ForeignKey("till_coins.id"))'
        (found,) = plant({**JOBS, "core/jobs.py": JOBS["core/jobs.py"] + key})
        assert "M6 app.core.jobs.Job.coin_id has a foreign key to till_coins" in found

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("import app.nowhere", "ModuleNotFoundError: No module named 'app.nowhere'"),
            ("class Part(Base): ...", "InvalidRequestError: Class <class 'app.shop.models.Part'> does not have"),
            ("raise RuntimeError", "RuntimeError"),
        ],
    )
    def test_models_that_cannot_be_imported_hide_no_other_breach(self, plant: Plant, text: str, reason: str) -> None:
        broken, breach = plant({"shop/models.py": f"{MODEL}\n{text}", "shop/services.py": "import app.till.deps"})
        assert broken.startswith(f"app/shop/models.py:10: M6 the tables cannot be read: {reason}")
        assert breach.startswith("app/shop/services.py:1: M1 ")

    def test_a_relationship_to_nothing_is_named(self, plant: Plant) -> None:
        (found,) = plant({"shop/models.py": f'{MODEL}    gone: Mapped["Gone"] = relationship("Gone")\n'})
        assert "M6 the tables cannot be read: InvalidRequestError: " in found
        assert "Order" in found


DEPENDS = 'depends_on = ["app.till"]\n'


class TestExceptions:
    BREACH = DEPENDS + '\n[[exceptions]]\nrule = "M1"\nfrom = "{}"\nto = "{}"\nreason = "moves in May"'

    @pytest.mark.parametrize(
        ("source", "target"),
        [("app.shop.services", "app.till.deps"), ("app.shop", "app.till"), ("app.shop.services", "app.till")],
    )
    def test_a_listed_breach_is_none(self, plant: Plant, source: str, target: str) -> None:
        files = {
            "shop/module.toml": self.BREACH.format(source, target),
            "shop/services.py": "import app.till.deps",
        }
        assert plant(files) == []

    @pytest.mark.parametrize(
        ("source", "target"),
        [("app.shop.serv", "app.till.deps"), ("app.shop.services", "app.till.models"), ("app.core", "app.shop")],
    )
    def test_it_excuses_nothing_else_and_is_reported(self, plant: Plant, source: str, target: str) -> None:
        files = {
            "shop/module.toml": self.BREACH.format(source, target),
            "shop/services.py": "import app.till.deps",
        }
        unused, breach = plant(files)
        assert unused == (
            f"app/shop/module.toml:3: M1 the exception from {source} to {target} excuses nothing. "
            "Fix: remove it, or correct its rule, from and to."
        )
        assert breach.startswith("app/shop/services.py:1: M1 ")

    def test_a_circle_and_a_foreign_key_can_be_listed(self, plant: Plant) -> None:
        listed = '[[exceptions]]\nrule = "{}"\nfrom = "app.shop"\nto = "app.till"\nreason = "moves in May"\n'
        key = '    coin_id: Mapped[int] = mapped_column(ForeignKey("till_coins.id"))\n'
        files = {
            "shop/module.toml": DEPENDS + listed.format("M3") + listed.format("M6"),
            "shop/models.py": MODEL + key,
            "shop/__init__.py": "from app.shop.schemas import Order",
            "till/module.toml": 'depends_on = ["app.shop"]',
        }
        assert plant(files) == []


def test_without_grimp_it_says_what_to_do() -> None:
    program = (
        "import sys; sys.modules['grimp'] = None\n"
        "from app.core.boundaries import boundary_violations\n"
        "boundary_violations()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr.rstrip().endswith(
        "ConfigError: boundaries are checked with grimp, a development tool: make setup"
    )
