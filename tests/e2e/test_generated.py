"""What the generators write passes every check and every test unedited, and can be taken back.

It takes minutes, so `make test` leaves it out and `make e2e` asks for it, with E2E=1.
"""

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import URL

from app.core.modules import present_modules
from tests.clone import Clone
from tests.external.installed import Site, run
from tests.processes import served_settings

pytestmark = pytest.mark.skipif(not os.environ.get("E2E"), reason="takes minutes: make e2e")

# Nothing is installed again: the environment is the one in use.
MAKE = ("make", "-o", ".venv/.development", "-o", ".venv/.runtime")
MINUTES = 60.0
SERVED = os.environ.get("TEST_BACKEND") == "served"
BACKENDS = ("embedded", "served") if SERVED else ("embedded",)
"""What one half tries for both: the other has the whole suite to run on what is generated."""
ALONE = {"E2E": "", "TEST_BACKEND": "embedded", "TEST_DATABASE_URL": "", "TEST_REDIS_URL": ""}
"""As without servers."""

PURCHASES = ("number:str:unique", "total:decimal", "placed_at:datetime")
EVERY_TYPE = (
    *("code:str(3):unique", "title:str(80):index:nullable", "body:text", "note:text:nullable", "count:int:unique"),
    *("size:int:index:nullable", "ratio:float", "price:decimal(5,3)", "rate:decimal(15,0):nullable", "is_open:bool"),
    *(
        "owner_id:id:index",
        "due_on:date:index",
        "seen_at:datetime:nullable",
        "token:uuid:unique",
        "data:json",
        "extra:json:nullable",
    ),
    *("contact:email:unique", "type:str:nullable"),
)


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    """The project as it is."""
    return Clone(tmp_path)


@pytest.fixture(scope="module")
def purchases(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone with a module of one model."""
    clone = Clone(tmp_path_factory.mktemp("purchases"))
    clone.made("module", "new", "purchase_orders")
    clone.made("model", "new", "purchase_orders", "PurchaseOrder", *PURCHASES)
    return clone


@pytest.fixture
def settings(template: URL) -> Iterator[dict[str, str]]:
    """A database of the test's own."""
    with served_settings() as found:
        yield found


def asked(clone: Clone, *requests: tuple[str, str, Any]) -> list[dict[str, Any]]:
    """The answers of the clone's application, to a user who is logged in."""
    clone.made("migrate")
    said = clone.python("-m", "tests.external.visit", json.dumps(requests))
    answers: list[dict[str, Any]] = json.loads(said.splitlines()[-1])
    return answers


def ids(answer: dict[str, Any]) -> list[int]:
    """The ids on a page."""
    assert answer["status"] == 200, answer
    return [item["id"] for item in answer["body"]["data"]]


class TestModule:
    def test_all_checks_and_all_tests_pass(self, purchases: Clone) -> None:
        if SERVED:
            tests = ("tests/purchase_orders", "tests/fuzz/test_openapi.py")
            purchases.python("-m", "pytest", "-q", *tests, timeout=10 * MINUTES, E2E="")
        else:
            purchases.run(*MAKE, "check", timeout=10 * MINUTES, **ALONE)
            purchases.run(*MAKE, "test", f"ARGS={os.environ.get('E2E_TESTS', '')}", timeout=25 * MINUTES, **ALONE)

    def test_its_list_sorts_filters_and_pages(
        self, purchases: Clone, settings: dict[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(purchases, "settings", settings)
        url = "/api/v1/purchase-orders"
        orders = [
            {"number": number, "total": total, "placed_at": f"2026-0{month}-01T00:00:00+02:00"}
            for number, total, month in (("A-1", "10.50", 3), ("A-2", "99.90", 1), ("B-1", "5", 2))
        ]
        *made, again, desc, some, second, walk, wrong = asked(
            purchases,
            *(("POST", url, order) for order in orders),
            ("POST", url, orders[0]),
            ("GET", f"{url}?sort=total:desc,number", None),
            ("GET", f"{url}?filters=number__ilike:a-,total__lt:50,placed_at__gte:2026-01-01T00:00:00Z", None),
            ("GET", f"{url}?sort=placed_at&page=2&per_page=2", None),
            ("GET", f"{url}?cursor=&sort=number:desc&per_page=2", None),
            ("GET", f"{url}?filters=total:much", None),
        )
        one, two, three = (answer["body"]["data"]["id"] for answer in made)
        assert (again["status"], again["body"]["code"]) == (409, "already_exists")
        assert ids(desc) == [two, one, three]
        assert ids(some) == [one]
        assert ids(second) == [one]
        assert second["body"]["meta"] == {"pagination": {"total": 3, "page": 2, "per_page": 2}}
        assert ids(walk) == [three, two]
        assert walk["body"]["meta"]["pagination"]["next_cursor"]
        assert (wrong["status"], wrong["body"]["errors"][0]["loc"]) == (422, ["query", "filters"])

    @pytest.mark.once
    def test_every_shape_passes(self, clone: Clone) -> None:
        modules = {
            "billing": ("shared", {"Invoice": EVERY_TYPE, "Client": PURCHASES}),
            "customer_support_cases": ("own", {"Property": ("text:text:nullable",), "CustomerSupportCase": EVERY_TYPE}),
        }
        for module, (migrations, models) in modules.items():
            clone.made("module", "new", module, "--migrations", migrations)
            for name, fields in models.items():
                clone.made("model", "new", module, name, *fields)
        clone.run(*MAKE, "check", timeout=10 * MINUTES, **ALONE)
        for name in BACKENDS:
            tests = [f"tests/{module}" for module in modules]
            clone.python("-m", "pytest", "-q", *tests, "tests/fuzz", timeout=15 * MINUTES, E2E="", TEST_BACKEND=name)

    @pytest.mark.once
    def test_in_the_folders_of_a_module_that_has_grown(self, clone: Clone) -> None:
        module = clone.folder / "app" / "billing"
        clone.made("module", "new", "billing")
        clone.made("model", "new", "billing", "Invoice", *PURCHASES)
        for layer in ("models", "services", "routes"):
            (module / layer).mkdir()
            (module / f"{layer}.py").rename(module / layer / "__init__.py")
        root = module / "models" / "__init__.py"
        root.write_text(f'{root.read_text()}\n__all__ = ["Invoice"]\n')
        clone.made("model", "new", "billing", "Payment", "amount:decimal", "paid_on:date")
        for path in ("models/payment.py", "services/payments.py", "routes/payments.py"):
            assert (module / path).is_file()
        clone.run(*MAKE, "check", timeout=10 * MINUTES, **ALONE)
        for name in BACKENDS:
            clone.python("-m", "pytest", "-q", "tests/billing", timeout=5 * MINUTES, E2E="", TEST_BACKEND=name)


class TestRemoval:
    @pytest.mark.once
    def test_a_module_comes_and_goes_without_a_trace(self, clone: Clone) -> None:
        said = clone.made("module", "new", "gift_cards", "--dry-run").splitlines()
        assert said[-1] == "Nothing was done."
        assert clone.changes() == []

        clone.made("module", "new", "gift_cards")
        assert [path for line in said[:-1] if not (clone.folder / (path := line.split()[1])).is_file()] == []
        assert "exists: add to it with" in clone.refused("module", "new", "gift_cards")
        assert "gift_cards is left out" not in clone.made("module", "list")

        clone.made("module", "remove", "gift_cards")
        assert clone.changes() == []

    @pytest.mark.once
    def test_models_go_with_it_and_what_is_not_generated_is_asked_for(self, clone: Clone) -> None:
        clone.made("module", "new", "gift_cards")
        clone.made("model", "new", "gift_cards", "Order", *PURCHASES)
        clone.made("model", "new", "gift_cards", "GiftCard", "code:str(12):unique", "order_id:int:index")
        assert "/gift-cards/orders is served already" in clone.refused("model", "new", "gift_cards", "Order", "a:int")
        assert "exceptions.py uses the name OrderNotFound already" in clone.refused(
            "model", "new", "gift_cards", "Order", "a:int", "--plural", "other_orders"
        )
        assert "the name Field already" in clone.refused("model", "new", "gift_cards", "Field", "a:int")

        (clone.folder / "app" / "gift_cards" / "by_hand.py").write_text('"""Mine."""\n')
        assert clone.refused("module", "remove", "gift_cards") == (
            "git does not have app/gift_cards/by_hand.py: commit it, or delete it with --force"
        )
        clone.made("module", "remove", "gift_cards", "--force")
        assert clone.changes() == []

    @pytest.mark.once
    def test_what_others_have_or_need_stays(self, clone: Clone) -> None:
        clone.made("module", "new", "gift_cards")
        clone.made("model", "new", "gift_cards", "Card", "code:str")
        assert "app.gift_cards" in clone.refused("module", "remove", "auth")
        clone.commit()

        said = clone.made("module", "remove", "gift_cards")

        (revision,) = (clone.folder / "migrations" / "versions").glob("*_cards.py")
        assert f"migrations/versions/{revision.name} stays: databases may have run it" in said
        assert "Tables gift_cards_* that exist are left alone" in said
        assert clone.made("migrate", "check", "--scratch").startswith("The migrations are sound on SQLite")
        assert clone.changes() != []

    def test_a_revision_that_was_run_stays(self, clone: Clone, settings: dict[str, str]) -> None:
        clone.settings = settings
        clone.made("module", "new", "gift_cards")
        clone.made("model", "new", "gift_cards", "Card", "code:str")
        clone.made("migrate")
        assert "_cards.py stays" in clone.made("module", "remove", "gift_cards")
        assert "gift_cards_cards" in clone.made("migrate", "status")

    @pytest.mark.once
    def test_a_failure_half_way_leaves_nothing(self, clone: Clone) -> None:
        clone.made("module", "new", "gift_cards")
        clone.commit()
        with (clone.folder / "app" / "main.py").open("a") as file:
            file.write("\nraise RuntimeError('late')\n")
        assert "RuntimeError: late" in clone.refused("model", "new", "gift_cards", "Card", "code:str")
        assert clone.changes() == [" M app/main.py"]


OPTIONAL = [module.short_name for module in present_modules() if module.migrations == "own"]
"""Modules of ours that a fork may not want: all of them is in their own folders."""


class TestOptional:
    @pytest.mark.parametrize("name", OPTIONAL)
    def test_it_goes_without_a_trace_and_leaves_a_green_tree(self, clone: Clone, name: str) -> None:
        said = clone.made("module", "remove", name)
        assert "still names it" not in said
        assert "stays" not in said
        names = (name, name.replace("_", "-"))
        clone.commit()
        listed = [path for path in clone.run("git", "ls-files").splitlines() if (clone.folder / path).is_file()]
        assert not [path for path in listed if any(one in path for one in names)]
        # The attack suite looks for what a deployment may have; the log of changes says what there was.
        elsewhere = [path for path in listed if path != "CHANGELOG.md" and not path.startswith("tests/attacks/")]
        texts = {path: (clone.folder / path).read_text(encoding="utf-8", errors="replace") for path in elsewhere}
        assert not [path for path, text in texts.items() if re.search(rf"\b(?:{'|'.join(names)})", text, re.IGNORECASE)]
        if SERVED:
            clone.python("-m", "pytest", "-q", "tests/auth", "tests/audit", timeout=15 * MINUTES, E2E="")
        else:
            clone.run(*MAKE, "check", timeout=10 * MINUTES, **ALONE)
            chosen = [path for path in os.environ.get("E2E_TESTS", "").split() if (clone.folder / path).exists()]
            clone.run(*MAKE, "test", f"ARGS={' '.join(chosen)}", timeout=40 * MINUTES, **ALONE)


class TestPackage:
    def test_its_tests_pass_and_its_wheel_is_served(
        self, clone: Clone, settings: dict[str, str], tmp_path: Path
    ) -> None:
        name = "price_lists"
        clone.made("module", "new", name, "--external")
        clone.run(".venv/bin/ruff", "check", "packages")
        clone.run(".venv/bin/ruff", "format", "--check", "packages")
        folder = shutil.copytree(clone.folder / "packages" / name, tmp_path / name)
        alone = Site(tmp_path)
        alone.install(folder)
        shutil.rmtree(folder / name)
        assert " passed" in run(sys.executable, "-m", "pytest", "-q", cwd=folder, env=alone.environment())
        clone.settings, clone.site = settings | {"MODULES": f"app.*,{name}"}, alone.packages
        assert "Every boundary holds." in clone.made("module", "validate")
        *made, listed, wrong = asked(
            clone,
            *(("POST", f"/{name}/items", {"name": item}) for item in ("lamp", "chair", "table")),
            ("GET", f"/{name}/items?sort=name:desc&filters=id__lt:3&page=1&per_page=1", None),
            ("GET", f"/{name}/items?sort=secret", None),
        )
        assert [answer["status"] for answer in made] == [201] * 3
        assert ids(listed) == [1]
        assert listed["body"]["meta"] == {"pagination": {"total": 2, "page": 1, "per_page": 1}}
        assert wrong["status"] == 422
        clone.made("migrate", "check")
        clone.made("migrate", "downgrade", "base", "-t", name, "--yes")
        clone.settings, clone.site = {}, None
        clone.made("module", "remove", name)
        assert clone.changes() == []
