"""M6: what leads from the tables of one module into another; and the exceptions that manifests list."""

import pytest

from tests.architecture.conftest import Plant

pytestmark = pytest.mark.once

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
                '    coin_id: Mapped[int] = mapped_column(ForeignKey("public.till_coins.id"))',
                9,
                "app.shop.models.Order.coin_id has a foreign key to public.till_coins, a table of till",
            ),
            (
                '    twins: Mapped[list["Order"]] = relationship(secondary="till_coins", viewonly=True,'
                ' primaryjoin="Order.id == foreign(till_coins.c.id)",'
                ' secondaryjoin="Order.id == foreign(till_coins.c.id)")',
                9,
                "app.shop.models.Order.twins goes by way of till_coins, a table of till. Fix: keep the ids",
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
            "from typing import Annotated\nfrom . import models\nOrder = Annotated[models.Order | None, 1]",
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
