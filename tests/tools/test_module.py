"""`kit module list`, `validate` and `docs`."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from app.core.configs import PROJECT_ROOT
from app.core.modules import present_modules
from tests import processes
from tests.planted import PlantedProject
from tests.processes import environment, kit

pytestmark = pytest.mark.once

Run = Callable[..., CompletedProcess[str]]

SHOP = {
    "module.toml": 'depends_on = ["app.till"]',
    "__init__.py": '"""Sells things."""\n\nfrom app.shop.models import Order',
    "models.py": """
from sqlalchemy import Column, ForeignKey, Integer, Table
from sqlalchemy.orm import Mapped, mapped_column

from app.core.db import BaseModel

links = Table("shop_links", BaseModel.metadata, Column("order_id", Integer))


class Order(BaseModel):
    \"\"\"What somebody wants.\"\"\"

    __tablename__ = "shop_orders"
    user_id: Mapped[int] = mapped_column(ForeignKey("auth_users.id"))
""",
    "schemas.py": "def late():\n    from app.shop import services",
    "services.py": "import app.till.deps as internal\nfrom app.auth import UserDTO",
    "routers.py": """
from fastapi import APIRouter, WebSocket

router_v1 = APIRouter()


@router_v1.websocket("/shop/news")
async def news(socket: WebSocket) -> None:
    \"\"\"Tell what is sold.\"\"\"
""",
    "events.py": """
from app.core.services.events import BaseEvent


class OrderPlaced(BaseEvent):
    \"\"\"Somebody wants something.\"\"\"
""",
}
TILL = {
    "module.toml": 'exposes = ["sums"]',
    "sums.py": "",
    "__init__.py": '"""Counts money."""',
    "deps.py": "def late():\n    import app.shop",
    "listeners.py": """
from app.core.deps import listener
from app.shop.events import OrderPlaced


@listener(OrderPlaced)
async def count(event):
    \"\"\"Count the money.\"\"\"
""",
}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A `kit` command in a copy of the application, with auth and two modules that break every rule."""
    for name in ("app", "tools"):
        shutil.copytree(PROJECT_ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for module in present_modules(tmp_path):
        if module.short_name != "auth":
            shutil.rmtree(module.path)
    (tmp_path / "docs").mkdir()
    for name, files in {"shop": SHOP, "till": TILL}.items():
        (tmp_path / "app" / name).mkdir()
        for file, text in files.items():
            (tmp_path / "app" / name / file).write_text(text)

    def run(*arguments: str, **settings: str) -> CompletedProcess[str]:
        command = (sys.executable, "-m", "app.cli", "module", *arguments)
        return processes.run(*command, cwd=tmp_path, env=environment(tmp_path, **settings))

    return run


class TestList:
    def test_names_states_and_summaries(self, run: Run) -> None:
        done = run("list", MODULES="app.shop,app.till")
        assert done.stdout.splitlines() == [
            "app.till  installed, shared migrations, exposes sums",
            "          Counts money.",
            "app.shop  installed, shared migrations, uses app.till",
            "          Sells things.",
            "app.auth  left out, shared migrations, exposes deps, exceptions, gateway",
            "          Accounts, sessions and tokens: who is calling, and what they may do.",
        ]

    def test_json(self) -> None:
        auth = next(row for row in json.loads(kit("module", "list", "--json").stdout) if row["name"] == "app.auth")
        assert auth == {
            "name": "app.auth",
            "state": "installed",
            "migrations": "shared",
            "depends_on": [],
            "exposes": ["deps", "exceptions", "gateway"],
            "summary": "Accounts, sessions and tokens: who is calling, and what they may do.",
        }

    def test_a_wrong_setting_is_one_line(self) -> None:
        done = kit("module", "list", MODULES="app.auht")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == "MODULES: app.auht does not exist; did you mean app.auth?\n"


class TestValidate:
    def test_the_house_is_sound(self) -> None:
        done = kit("module", "validate")
        assert (done.returncode, done.stdout, done.stderr) == (0, "Every boundary holds.\n", "")
        assert json.loads(kit("module", "validate", "--json").stdout) == {
            "violations": [],
            "warnings": [],
            "faults": [],
        }

    def test_every_broken_rule_is_named_with_its_fix(self, run: Run, tmp_path: Path) -> None:
        with (tmp_path / "app" / "core" / "deps.py").open("a") as file:
            file.write("\ndef late() -> None:\n    import app.shop\n")
        done = run("validate", "--json")
        assert done.returncode == 1, done.stderr
        found = {(one["file"], one["rule"]) for one in json.loads(done.stdout)["violations"]}
        assert found == {
            ("app/shop/services.py", "M1"),
            ("app/till/listeners.py", "M1"),
            ("app/shop/services.py", "M2"),
            ("app/till/deps.py", "M2"),
            ("app/till/listeners.py", "M2"),
            ("app/shop/services.py", "M3"),
            ("app/shop/schemas.py", "M4"),
            ("app/core/deps.py", "M5"),
            ("app/shop/__init__.py", "M6"),
            ("app/shop/models.py", "M6"),
            ("app/core/deps.py", "M7"),
            ("app/shop/schemas.py", "M7"),
            ("app/till/deps.py", "M7"),
        }
        lines = run("validate").stdout.splitlines()
        breach = "M2 app.shop.services imports app.auth, which is not in depends_on of app.shop"
        place = lines.index(f"app/shop/services.py:2: {breach}")
        assert lines[place + 1] == '    Fix: add "app.auth" to depends_on in app/shop/module.toml.'

    def test_a_module_that_keeps_ids_of_users_and_forgets_to_answer_is_a_warning(self, tmp_path: Path) -> None:
        project = PlantedProject(tmp_path)
        shop, _ = project.add_module("shop", "shop_orders"), project.add_module("till", "till_coins")
        with (shop / "models.py").open("a") as file:
            file.write("    owner_id: Mapped[int]\n")

        done = project.kit("module", "validate")

        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == [
            "app/shop/models.py:15: P1 app.shop keeps ids of users (shop_orders.owner_id) "
            "and answers neither export nor erasure",
            "    Fix: write app/shop/personal_data.py: docs/modules.md#personal-data.",
            "Every boundary holds.",
        ]
        (shop / "personal_data.py").touch()
        assert project.kit("module", "validate").stdout == "Every boundary holds.\n"

    def test_a_manifest_that_cannot_be_read(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "app" / "shop" / "module.toml").write_text("depend_on = []")
        fault = "app/shop/module.toml: depend_on: unknown key; did you mean depends_on?"
        done = run("validate")
        assert (done.returncode, done.stdout, done.stderr) == (1, "", f"{fault}\n")
        assert json.loads(run("validate", "--json").stdout) == {"violations": [], "warnings": [], "faults": [fault]}


class TestDocs:
    def test_the_committed_map_is_what_the_code_says(self) -> None:
        done = kit("module", "docs", "--check", PROJECT_NAME="Another")
        assert done.returncode == 0, done.stderr

    def test_it_shows_modules_arrows_and_what_they_have(self, run: Run, tmp_path: Path) -> None:
        examples = PROJECT_ROOT / "examples" / "shop_reviews"
        done = run("docs", MODULES="app.*,shop_reviews", PYTHONPATH=str(examples))
        assert done.returncode == 0, done.stderr
        text = (tmp_path / "docs" / "module-map.md").read_text()
        for line in [
            "    shop --> till",
            '    shop -. "OrderPlaced" .-> till',
            "Sells things. Uses [till](#till).",
            "Counts money. Uses no other module. Exposes `app.till.sums`.",
            "| `OrderPlaced` | Somebody wants something. |",
            "| `OrderPlaced` | Count the money. (`app.till.listeners:count`) |",
            "| `shop_links` |  |",
            "| `shop_orders` | What somebody wants. |",
            "| `shop_reviews_reviews` | What a user says of a product. No foreign key: "
            "the tables of others may change without notice. |",
            "| `WEBSOCKET /api/v1/shop/news` | Tell what is sold. |",
            "| `POST /api/v1/auth/login` | Log in with e-mail address or user name: "
            "the OAuth2 password grant as a form, or JSON. |",
            "| `get_user(user_id: int) -> UserDTO \\| None` | "
            "Return the account, or None where there is none (any more). |",
            "| `17 3 * * * UTC` | `auth.purge_expired` |",
            "| `REFRESH_TOKEN_EXPIRE_DAYS` | `30` |",
        ]:
            assert line in text.splitlines()

    def test_a_difference_is_noticed(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "docs" / "module-map.md").write_text("# Module map\n")
        done = run("docs", "--check")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == (
            "docs/module-map.md is not what the code says. If the change is meant: .venv/bin/kit module docs\n"
        )
