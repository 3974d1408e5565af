"""`kit module new` and `remove`, `kit model new`: what they write and what they refuse.

What they do is in test_generated.py; that what they write passes every check is proven by tests/e2e.
"""

import ast
import os
import signal
from pathlib import Path

import pytest

from app.core.configs import PROJECT_ROOT
from app.core.db import BaseModel
from app.core.modules import Module
from tools.generators import source
from tools.generators.changes import Changes, GeneratorError
from tools.generators.fields import MODEL_ATTRIBUTES, read_fields
from tools.generators.models import ModelPlan, plan_model
from tools.generators.modules import is_package, plan_module, plan_package, with_dependency
from tools.generators.names import model_names
from tools.generators.removal import plan_removal

PAGES = (".sample.env", "docs/configuration.md", "README.md")


class TestModuleName:
    @pytest.mark.parametrize("name", ["zebras", "zebra_stables", "three_word_names", "v2"])
    def test_what_is_taken(self, name: str) -> None:
        made = plan_module(name, "shared", force=False).made
        assert {path.relative_to(PROJECT_ROOT).parts[:2] for path in made} == {("app", name), ("tests", name)}

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("purchase-orders", "'purchase-orders' is no name of a module: write purchase_orders"),
            ("PurchaseOrders", "'PurchaseOrders' is no name of a module: write purchase_orders"),
            ("2fast", "'2fast' is no name of a module: write fast"),
            ("büro", "'büro' is no name of a module"),
            ("", "'' is no name of a module"),
            ("../up", "'../up' is no name of a module: write up"),
            ("class", "class is a keyword of Python: choose another name"),
            ("match", "match is a keyword of Python: choose another name"),
            ("json", "json is a module of Python's standard library: choose another name"),
            ("fastapi", "fastapi is a package that is installed here: choose another name"),
            ("core", "app/core is a part of the application: choose another name"),
            ("main", "app/main is a part of the application: choose another name"),
            ("shared", "app/shared is a part of the application: choose another name"),
            ("auth", "the module auth exists: add to it with kit model new auth ..."),
            ("contract", "tests/contract is there and tests something else: choose another name"),
            ("n" * 31, f"{'n' * 31} has 31 characters: a module's name may have 30"),
            (
                "auth_extras",
                "the tables auth_extras_* would be taken for those of auth, as they begin with auth_: "
                "choose another name",
            ),
        ],
    )
    def test_what_is_refused(self, name: str, said: str) -> None:
        with pytest.raises(GeneratorError) as refused:
            plan_module(name, "shared", force=False)
        assert str(refused.value) == said

    @pytest.mark.parametrize("name", ["app", "core", "shared", "sqlalchemy", "email", "Reviews"])
    def test_what_no_package_can_be_called(self, name: str) -> None:
        with pytest.raises(GeneratorError):
            plan_package(name, force=False)

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("auth", "the module auth exists: choose another name"),
            (
                "auth_extras",
                "the tables auth_extras_* would be taken for those of auth, as they begin with auth_: "
                "choose another name",
            ),
        ],
    )
    def test_a_package_beside_a_module_that_begins_like_it(self, name: str, said: str) -> None:
        with pytest.raises(GeneratorError) as refused:
            plan_package(name, force=False)
        assert str(refused.value) == said

    def test_a_path_is_no_name_of_a_package(self, tmp_path: Path) -> None:
        assert not is_package(str(tmp_path))
        with pytest.raises(GeneratorError, match="is no name of a module"):
            plan_package(str(tmp_path), force=True)


class TestModelName:
    @pytest.mark.parametrize(
        ("name", "one", "many"),
        [
            ("Order", "order", "orders"),
            ("PurchaseOrder", "purchase_order", "purchase_orders"),
            ("Category", "category", "categories"),
            ("Day", "day", "days"),
            ("Box", "box", "boxes"),
            ("HTTPLog", "http_log", "http_logs"),
        ],
    )
    def test_its_forms(self, name: str, one: str, many: str) -> None:
        assert (model_names(name).one, model_names(name).many) == (one, many)

    def test_a_plural_can_be_given(self) -> None:
        assert model_names("Person", "people").alias == "People"

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("purchase_order", "'purchase_order' is no name of a model: write PurchaseOrder"),
            ("order", "'order' is no name of a model: write Order"),
            ("True", "True is a name of Python: choose another for the model"),
            ("Class", "class is a keyword of Python: choose another name for the model"),
            ("Warning", "Warning is a name of Python: choose another for the model"),
        ],
    )
    def test_what_is_refused(self, name: str, said: str) -> None:
        with pytest.raises(GeneratorError) as refused:
            model_names(name)
        assert str(refused.value) == said


class TestFields:
    def test_types_sizes_and_flags(self) -> None:
        columns = [
            field.column for field in read_fields(["a:str(80):unique", "b:decimal(10,4)", "c:int:index:nullable"])
        ]
        assert columns == [
            "a: Mapped[str] = mapped_column(String(80), unique=True)",
            "b: Mapped[Decimal] = mapped_column(Numeric(10, 4))",
            "c: Mapped[int | None] = mapped_column(index=True)",
        ]

    @pytest.mark.parametrize(
        ("field", "said"),
        [
            ("number", "'number' is no field: write name:type, with :unique, :index or :nullable behind it"),
            ("number:string", "number: there is no type string; there are str, text, int, id, float, "),
            ("number:str:uniq", "number: 'uniq' is none of unique, index, nullable"),
            ("placedAt:datetime", "'placedAt' is no name of a field: write it as in placed_at"),
            ("a__lt:int", "'a__lt' is no name of a field"),
            ("class:str", "class is a keyword of Python: choose another name for the field"),
            ("id:int", "every model has the field id already"),
            ("created_at:datetime", "every model has the field created_at already"),
            ("metadata:json", "metadata means something else in a model: choose another name for the field"),
            ("date:date", "date means something else in a model"),
            ("copy:str", "copy means something else in a model"),
            ("data:json:unique", "data: a json cannot be unique"),
            ("note:text:index", "note: a text cannot have an index"),
            ("number:str(0)", "number: a str has 1 to 2000 characters; text is for more"),
            ("number:str(501):index", "number: in an index a str has at most 500 characters"),
            ("number:int(5)", "number: int has no size"),
            ("total:decimal(5)", "total: write decimal(12,2), or decimal alone"),
            ("total:decimal(2,3)", "total: 3 of 2 digits cannot be behind the point"),
            ("total:decimal(16,2)", "total: a decimal has 1 to 15 digits, as SQLite keeps no more"),
        ],
    )
    def test_what_is_refused(self, field: str, said: str) -> None:
        with pytest.raises(GeneratorError) as refused:
            read_fields([field])
        assert str(refused.value).startswith(said)

    def test_every_attribute_of_a_model_is_known(self) -> None:
        assert {name for name in dir(BaseModel) if not name.startswith("_")} == {
            *MODEL_ATTRIBUTES,
            *("id", "created_at", "updated_at"),
        }

    def test_none_and_twice(self) -> None:
        with pytest.raises(GeneratorError, match="a model needs fields"):
            read_fields([])
        with pytest.raises(GeneratorError, match="the field number is given twice"):
            read_fields(["number:str", "number:int"])


class TestModel:
    def plan(self, name: str, module: str = "auth", field: str = "number:str:unique") -> Changes:
        return plan_model(module, name, [field], plural=None, force=False).changes

    def test_a_path_that_is_served(self) -> None:
        with pytest.raises(GeneratorError, match="/auth/sessions is served already: choose another name"):
            self.plan("Session")

    def test_identifiers_that_postgresql_would_cut(self) -> None:
        with pytest.raises(GeneratorError, match="PostgreSQL takes 63"):
            self.plan("T" + "h" * 28, field=f"{'n' * 30}:str:unique")

    def test_a_name_that_a_new_file_needs_itself(self) -> None:
        with pytest.raises(GeneratorError, match=r"app/auth/models.py uses the name BaseModel already"):
            self.plan("BaseModel")

    def test_what_a_model_is_called_clashes_with_no_variable(self) -> None:
        planned = self.plan("Zebra")
        trees = [ast.parse(text) for path, text in (planned.made | planned.changed).items() if path.suffix == ".py"]
        names = {getattr(node, "id", getattr(node, "arg", None)) for tree in trees for node in ast.walk(tree)}
        assert "zebra_id" in names
        assert "zebra" not in names  # it could be called `client` or `property`

    def test_a_folder_that_is_left_of_a_package_is_no_layer(self, tmp_path: Path) -> None:
        (tmp_path / "models" / "__pycache__").mkdir(parents=True)
        plan = ModelPlan(Module("app.shop", tmp_path), model_names("Order"), "shop_orders", Changes(tmp_path))
        assert plan.place("models") == ("app.shop.models", tmp_path / "models.py")

    def test_an_unknown_module(self) -> None:
        with pytest.raises(GeneratorError, match=r"there is no module nowhere; there are .*auth"):
            self.plan("Order", module="nowhere")


class TestSource:
    def test_imports_join_imports_and_the_rest_the_rest(self) -> None:
        before = '"""Old."""\n\nimport a\n\nx = 1\n'
        assert source.merged(before, '"""New."""\n\nimport b\n\n\ndef f(): ...\n') == (
            '"""Old."""\n\nimport a\n\nimport b\n\nx = 1\n\n\n\n\ndef f(): ...\n'
        )
        assert source.merged("", "import b\n") == "import b\n"

    @pytest.mark.parametrize("addition", ["class A: ...", "from b import A", "A = 1", "def A(): ...", "import x as A"])
    def test_a_name_that_would_stand_for_two_things(self, addition: str) -> None:
        assert source.clash("from a import A", addition) == "A"

    def test_the_same_import_is_no_clash(self) -> None:
        assert source.clash("from a import A\nx = 1\nx = 2", "from a import A, B") is None

    def test_exports(self) -> None:
        assert source.export('__all__ = ["A"]\n', "B") == '__all__ = ["B", "A"]\n'
        assert source.export('"""None."""\n', "B") == '"""None."""\n\n__all__ = ["B"]\n'

    @pytest.mark.parametrize(
        ("before", "after"),
        [
            ("", 'depends_on = ["app.auth"]\n'),
            ("depends_on = []\n", 'depends_on = ["app.auth"]\n'),
            ('migrations = "own"\n', 'depends_on = ["app.auth"]\nmigrations = "own"\n'),
            ('depends_on = [\n    "app.b",\n]\n', 'depends_on = ["app.b", "app.auth"]\n'),
            ('depends_on = ["app.auth"]  # why\n', 'depends_on = ["app.auth"]  # why\n'),
        ],
    )
    def test_dependencies(self, before: str, after: str) -> None:
        assert with_dependency(before, "app.auth") == after


class TestChanges:
    @pytest.fixture
    def changes(self, tmp_path: Path) -> Changes:
        """One file made in a new folder, one changed, one deleted."""
        for name in ("changed", "deleted"):
            (tmp_path / name).write_text("before")
        found = Changes(tmp_path)
        found.made[tmp_path / "new" / "folder" / "made"] = "after"
        found.changed[tmp_path / "changed"] = "after"
        found.deleted.append(tmp_path / "deleted")
        return found

    def state(self, folder: Path) -> dict[str, str]:
        return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}

    def test_all(self, changes: Changes, tmp_path: Path) -> None:
        with changes.applied():
            pass
        assert self.state(tmp_path) == {"new/folder/made": "after", "changed": "after"}

    def test_or_none(self, changes: Changes, tmp_path: Path) -> None:
        def fail_late() -> None:
            with changes.applied(tmp_path / "later"):
                (tmp_path / "later").mkdir()
                (tmp_path / "later" / "written").write_text("after")
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail_late()
        assert self.state(tmp_path) == {"changed": "before", "deleted": "before"}
        assert sorted(path.name for path in tmp_path.iterdir()) == ["changed", "deleted"]

    def test_none_where_it_is_stopped(self, changes: Changes, tmp_path: Path) -> None:
        with pytest.raises(SystemExit), changes.applied():
            os.kill(os.getpid(), signal.SIGTERM)
        assert self.state(tmp_path) == {"changed": "before", "deleted": "before"}

    def test_none_where_a_folder_cannot_be_made(self, changes: Changes, tmp_path: Path) -> None:
        (tmp_path / "new").write_text("in the way")
        with pytest.raises(OSError), changes.applied():  # noqa: PT011  which one depends on the system
            pass
        assert self.state(tmp_path) == {"changed": "before", "deleted": "before", "new": "in the way"}

    def test_nothing_is_overwritten(self, changes: Changes, tmp_path: Path) -> None:
        (tmp_path / "new" / "folder").mkdir(parents=True)
        (tmp_path / "new" / "folder" / "made").write_text("somebody's")
        with pytest.raises(GeneratorError, match="new/folder/made is there already: --force overwrites"):
            changes.refuse_overwriting()


class TestRemoval:
    def test_settings_and_the_page_go_with_a_module(self) -> None:
        changes = plan_removal("auth").changes
        sample, listed, links = (changes.changed[PROJECT_ROOT / name] for name in PAGES)
        assert PROJECT_ROOT / "docs" / "auth.md" in changes.deleted
        assert ("# --- Accounts" in sample, "JWT_SECRET_KEY=" in sample) == (False, False)
        assert ("### Accounts" in listed, "| `JWT_SECRET_KEY` |" in listed) == (False, False)
        assert ("](docs/auth.md) ·" in links, "](docs/modules.md)" in links) == (False, True)

    def test_the_rest_of_these_pages_stays(self) -> None:
        changes = plan_removal("audit").changes
        assert not [path for path in changes.deleted if path.parent == PROJECT_ROOT / "docs"]
        for name in PAGES[:2]:
            path = PROJECT_ROOT / name
            kept, before = changes.changed[path].splitlines(), path.read_text().splitlines()
            gone = [line for line in before if line and line not in kept]
            assert any("AUDIT_KEEP_DAYS" in line for line in gone)
            assert len(gone) <= 3
        assert not [place for place in plan_removal("audit").mentions if place.startswith(".sample.env")]
