"""The boundaries hold, and a breach of each rule would be seen, named and explained."""

import subprocess
import sys

import pytest

from app.core.configs import PROJECT_ROOT
from app.core.exceptions import ConfigError
from tests.architecture.conftest import HOUSE, Plant
from tools.boundaries import boundary_violations

pytestmark = pytest.mark.once


def test_the_house_has_no_breach() -> None:
    assert [str(violation) for violation in boundary_violations()] == []


def test_what_is_allowed_is_not_found(plant: Plant) -> None:
    allowed = {
        "main.py": "from app.core import models\nfrom app.shop import Order",
        "shop/services.py": "from app.core.db import Base\nfrom app.till import Sum\nfrom app.shop import schemas",
        "shop/__init__.py": "from app.shop.schemas import Order",
        "shop/lifespan.py": "from app.shop import Order\nimport app.till as till\n\ndef run(): till.Sum",
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
            "by another package": "import importlib\nx = lambda: importlib.import_module('.deps', package='app.till')",
            "by another package alone": "from importlib import *\nx = lambda: import_module('.', 'app.till.deps')",
            "by builtin": "x = lambda: __import__('app.till.deps')",
            "by keyword": "import importlib\nx = lambda: importlib.import_module(name='app.till.deps')",
            "by another name": "from importlib import import_module as load\nx = lambda: load('app.till.deps')",
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
    found = [one for one in plant({file: text}) if ": M3 " not in one and ": M7 " not in one]
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
        ("core/cache.py", "import tools.x", "M5 app.core.cache imports tools, which the production image does not"),
        ("main.py", "from tools.x import y", "M5 app.main imports tools, which"),
        ("shop/services.py", "f = __import__('tools.x')", "M5 app.shop.services imports tools, which"),
        ("core/configs.py", "import app.core.models", "M4 app.core.configs imports app.core.models: models is a floor"),
        ("core/process.py", "import app.core.db", "M4 app.core.process imports app.core.db: db is a floor above"),
        ("main.py", "import app.shop.services as s", "M1 app.main imports app.shop.services, which is internal"),
        ("utils/text.py", "", "M2 app.utils is neither core nor an entry point nor a module"),
        ("shop/bare/text.py", "import app.till.deps", "M1 the file is in no package"),
    ],
)
def test_other_faces_of_the_rules(plant: Plant, file: str, text: str, message: str) -> None:
    (found,) = plant({file: text})
    assert message in found


class TestExposed:
    EXPOSING = {"till/module.toml": 'exposes = ["deps", "sums.total"]'}  # noqa: RUF012

    @pytest.mark.parametrize("style", BREACHES["M1"][1].values(), ids=BREACHES["M1"][1].keys())
    def test_others_may_import_it_in_every_way(self, plant: Plant, style: str) -> None:
        files = {**self.EXPOSING, "till/sums/total.py": "", "shop/services.py": style}
        assert [one for one in plant(files) if ": M7 " not in one] == []

    @pytest.mark.parametrize("name", ["schemas", "sums", "sums.mean", "models"])
    def test_everything_else_stays_internal(self, plant: Plant, name: str) -> None:
        files = {"till/sums/total.py": "", "till/sums/mean.py": "", "shop/deps.py": f"import app.till.{name}"}
        (found,) = plant({**self.EXPOSING, **files})
        assert found.startswith(
            f"app/shop/deps.py:1: M1 app.shop.deps imports app.till.{name}, which is internal to app.till. "
            "Fix: import the name from app.till or app.till.deps or app.till.sums.total; where none offers it, "
        )

    def test_only_to_modules_that_declare_it(self, plant: Plant) -> None:
        files = {
            **self.EXPOSING,
            "till/sums/total.py": "",
            "shop/module.toml": "",
            "shop/deps.py": "import app.till.deps",
        }
        (found,) = plant(files)
        assert " M2 app.shop.deps imports app.till, which is not in depends_on" in found

    def test_a_circle_is_seen_through_it(self, plant: Plant) -> None:
        files = {
            "till/module.toml": 'depends_on = ["app.shop"]\nexposes = ["deps"]',
            "till/deps.py": "import app.shop",
            "shop/services.py": "import app.till.deps",
        }
        (found,) = plant(files)
        assert " M3 modules use each other in a circle: app.shop > app.till > app.shop " in found

    @pytest.mark.parametrize("text", ["from app.till.models import Coin", "from app.till.models import Coin as Till"])
    def test_it_hands_out_no_model(self, plant: Plant, text: str) -> None:
        (found,) = plant({**self.EXPOSING, "till/sums/total.py": "", "till/deps.py": text})
        assert found.startswith("app/till/deps.py:1: M6 app.till.deps exports the model ")


class TestPolicies:
    """A service may ask a policy of its module; that policy then stands below services."""

    def test_a_service_asks(self, plant: Plant) -> None:
        files = {
            "shop/services.py": "from app.shop.policies.orders import can_sell",
            "shop/policies/orders.py": "from app.shop.policies.basics import ask\ndef can_sell(): ask",
            "shop/policies/basics.py": "from app.till import Sum\ndef ask(): ...",
            "shop/policies/routes.py": "import app.shop.deps",  # asked by routes alone
            "shop/deps.py": "import app.shop.services",
        }
        assert plant(files) == []

    @pytest.mark.parametrize("layer", ["services.stock", "gateway", "deps"])
    @pytest.mark.parametrize("file", ["orders", "basics", "__init__"])
    def test_what_is_asked_uses_nothing_from_services_up(self, plant: Plant, file: str, layer: str) -> None:
        files = {
            "shop/services/sell.py": "from app.shop.policies.orders import can_sell",
            "shop/services/stock.py": "",
            "shop/gateway.py": "",
            "shop/deps.py": "",
            "shop/policies/orders.py": "import app.shop.policies.basics\ndef can_sell(): ...",
            "shop/policies/basics.py": "",
        }
        files[f"shop/policies/{file}.py"] = files.get(f"shop/policies/{file}.py", "") + f"\nimport app.shop.{layer}"
        (found,) = [one for one in plant(files) if " M4 " in one]
        name = "app.shop.policies" if file == "__init__" else f"app.shop.policies.{file}"
        assert f" M4 {name} imports app.shop.{layer}: services ask this policy, and " in found

    @pytest.mark.parametrize("layer", ["repositories", "schemas", "gateway", "deps"])
    def test_no_other_layer_below_asks(self, plant: Plant, layer: str) -> None:
        (found,) = plant({f"shop/{layer}.py": "import app.shop.policies", "shop/policies.py": ""})
        assert f"M4 app.shop.{layer} imports app.shop.policies: policies is a layer above {layer}" in found


class TestTasks:
    """A service may push a task of its module; that task then stands below services."""

    LAYERS = (
        ("routers", "listeners"),
        ("listeners", "routes"),
        ("bootstrap", "routes"),
        ("cli", "routes"),
        ("routes", "tasks"),
        ("tasks", "deps"),
        ("services", "emails"),
        ("emails", "repositories"),
    )

    @pytest.mark.parametrize(("upper", "lower"), LAYERS)
    def test_each_layer_uses_those_below_it(self, plant: Plant, upper: str, lower: str) -> None:
        down = {f"shop/{upper}.py": f"import app.shop.{lower}", f"shop/{lower}.py": ""}
        up = {f"shop/{lower}.py": f"import app.shop.{upper}", f"shop/{upper}.py": ""}
        assert plant(down) == []
        (found,) = plant(up)
        assert f"M4 app.shop.{lower} imports app.shop.{upper}: {upper} is a layer above {lower}. " in found

    def test_a_service_pushes_one_and_the_clock_runs_another(self, plant: Plant) -> None:
        files = {
            "shop/services.py": "import app.shop.tasks.mails",
            "shop/tasks/mails.py": "import app.shop.emails",
            "shop/emails.py": "",
            "shop/tasks/clock.py": "import app.shop.deps",
            "shop/deps.py": "import app.shop.services",
        }
        assert plant(files) == []

    @pytest.mark.parametrize("layer", ["services.stock", "gateway", "deps"])
    def test_what_is_pushed_uses_nothing_from_services_up(self, plant: Plant, layer: str) -> None:
        files = {
            "shop/services/sell.py": "import app.shop.tasks",
            "shop/services/stock.py": "",
            "shop/gateway.py": "",
            "shop/deps.py": "",
            "shop/tasks.py": f"import app.shop.{layer}",
        }
        (found,) = plant(files)
        assert f" M4 app.shop.tasks imports app.shop.{layer}: services push this task, and " in found


class TestInsideFunctions:
    @pytest.mark.parametrize("file", ["core/db.py", "core/api/deep/er.py", "shop/services.py", "shop/lifespan.py"])
    @pytest.mark.parametrize(
        "text", ["def f():\n    import json", "class A:\n    async def f(self): from json import loads"]
    )
    def test_an_import_is_found(self, plant: Plant, file: str, text: str) -> None:
        base = HOUSE.get(file, "")
        (found,) = plant({file: f"{base}\n{text}"})
        name = file.removesuffix(".py").replace("/", ".")
        assert f":{base.count(chr(10)) + 3}: M7 app.{name} imports inside a function: " in found

    @pytest.mark.parametrize("file", ["main.py", "worker.py", "cli/run.py", "shop/cli/shops.py"])
    def test_entry_points_may(self, plant: Plant, file: str) -> None:
        assert plant({file: "def f():\n    import json"}) == []

    def test_of_a_file_and_a_package_of_its_name_the_package_is_read(self, plant: Plant) -> None:
        (found,) = plant({"shop/services.py": "", "shop/services/__init__.py": "def f():\n    import json"})
        assert found.startswith("app/shop/services/__init__.py:2: M7 ")


class TestSiblings:
    """Files and folders beside each other, in core and in every module."""

    @pytest.mark.parametrize("folder", ["core/cache", "core", "shop/services", "shop/lists/deep", "cli"])
    def test_a_circle_of_three_is_found(self, plant: Plant, folder: str) -> None:
        name = f"app.{folder.replace('/', '.')}"
        ring = {"one": "two.x", "two.x": "three", "three": "one"}
        files = {
            f"{folder}/{source.replace('.', '/')}.py": f"import {name}.{target}" for source, target in ring.items()
        }
        (found,) = plant(files)
        assert found == (
            f"app/{folder}/one.py:1: M8 files or folders import each other in a circle: "
            f"{name}.one > {name}.two > {name}.three > {name}.one "
            f"(the other way at app/{folder}/two/x.py:1, app/{folder}/three.py:1). "
            "Fix: move what both need into a file of its own, or pass it in."
        )

    def test_a_file_and_the_root_of_its_folder_are_siblings_too(self, plant: Plant) -> None:
        files = {
            "core/queue/__init__.py": "from app.core.queue.store import x",
            "core/queue/store.py": "import app.core.queue",
        }
        (found,) = plant(files)
        assert " M8 files or folders import each other in a circle: app.core.queue > app.core.queue.store > " in found

    def test_an_exception_is_listed(self, plant: Plant) -> None:
        listed = '\n[[exceptions]]\nrule = "M8"\nfrom = "app.shop.one"\nto = "app.shop.two"\nreason = "moves in May"'
        files = {
            "shop/module.toml": HOUSE["shop/module.toml"] + listed,
            "shop/one.py": "import app.shop.two",
            "shop/two.py": "import app.shop.one",
        }
        assert plant(files) == []


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
        assert [one for one in plant(files) if ": M7 " not in one] == [
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


def test_what_only_running_it_tells_counts_up_to_there(plant: Plant) -> None:
    found = plant({"till/deps.py": "x = lambda name: __import__(f'app.shop.{name}')"})[-1]
    assert "M2 app.till.deps imports app.shop, which is not in depends_on" in found


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("\nx = (", "2: not valid Python"),
        ("\0", "1: not valid Python"),
        ("\nfrom ....till import deps", "2: the relative import leads out of the package"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(plant: Plant, text: str, fault: str) -> None:
    with pytest.raises(ConfigError, match=rf"shop/deps\.py:{fault}$"):
        plant({"shop/deps.py": text})


def test_without_grimp_it_says_what_to_do() -> None:
    program = (
        "import sys; sys.modules['grimp'] = None\n"
        "from tools.boundaries import boundary_violations\n"
        "boundary_violations()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.stderr.rstrip().endswith(
        "ConfigError: boundaries are checked with grimp, a development tool: make setup"
    )
