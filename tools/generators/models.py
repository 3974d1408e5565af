"""Plan and write a model and every layer above it: new files, or additions to the layers of a module."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.core.configs import PROJECT_ROOT, get_settings
from app.core.modules import Module, installed_modules
from tools.generators import source
from tools.generators.changes import Changes, GeneratorError
from tools.generators.fields import FieldSpec, read_fields
from tools.generators.modules import SHARED, module_named, with_dependency
from tools.generators.names import Names, model_names
from tools.generators.project import carry_out, write_documents

LAYERS = ("exceptions", "models", "repositories", "schemas", "services", "deps", "policies", "routes")
_ROUTER = "router_v1 = APIRouter()"
MAX_IDENTIFIER = 63
"""Characters of a name that PostgreSQL keeps."""


@dataclass(frozen=True)
class ModelPlan:
    """A model, and the files that will hold it."""

    module: Module
    names: Names
    table: str
    changes: Changes

    @property
    def factory(self) -> Path:
        """`tests/factories/<model>.py`, with the module in front where another module has a model of that name."""
        folder = PROJECT_ROOT / "tests" / "factories"
        usual = folder / f"{self.names.one}.py"
        is_free = not usual.exists() or f"from {self.module.name}." in usual.read_text(encoding="utf-8")
        return usual if is_free else folder / f"{self.module.short_name}_{self.names.one}.py"

    def place(self, layer: str) -> tuple[str, Path]:
        """Import name and file of a layer's new part: a file of its own where the layer is a folder."""
        folder = self.module.path / layer
        if not (folder / "__init__.py").is_file():  # a folder may be left of a package that became a file
            return f"{self.module.name}.{layer}", folder.with_suffix(".py")
        if layer == "models":
            return f"{self.module.name}.models", folder / f"{self.names.one}.py"
        inner = folder / "v1" if layer == "routes" and (folder / "v1").is_dir() else folder
        dotted = ".".join(inner.relative_to(self.module.path).parts)
        return f"{self.module.name}.{dotted}.{self.names.many}", inner / f"{self.names.many}.py"

    def add(self, path: Path, text: str, *, extends: bool = True) -> None:
        """Make the file or, where it may, add to the one that is there."""
        is_extended = extends and path.exists()
        before, shown = self.changes.text_of(path) if is_extended else "", self.changes.shown(path)
        source.check_parses(before, shown)
        if taken := source.clash(before, text):
            raise GeneratorError(f"{shown} uses the name {taken} already: choose another for the model")
        if is_extended:
            self.changes.changed[path] = source.merged(before, text)
        else:
            self.changes.made[path] = text


def plan_model(module_name: str, name: str, texts: list[str], *, plural: str | None, force: bool) -> ModelPlan:
    """The files of a new model; GeneratorError where it cannot be made."""
    module = module_named(module_name)
    if module.name not in [installed.name for installed in installed_modules()]:
        raise GeneratorError(f"MODULES leaves {module.name} out: add it, or its tables get no revision")
    names, fields = model_names(name, plural), read_fields(texts)
    table = module.table_prefix + names.many.removeprefix(module.table_prefix)
    _check_identifiers(table, fields)
    plan = ModelPlan(module, names, table, Changes(PROJECT_ROOT))
    values = _values(plan, fields)
    for layer in LAYERS:
        path = plan.place(layer)[1]
        plan.add(path, source.rendered(f"model/{layer}.py", **values), extends=path.parent == module.path)
    if (models := plan.place("models")[1].parent) != module.path:
        root = models / "__init__.py"
        line = f"from {module.name}.models.{names.one} import {names.cls}\n"
        plan.changes.changed[root] = source.export(source.merged(plan.changes.text_of(root), line), names.cls)
    _add_router(plan, values)
    tests = PROJECT_ROOT / "tests" / module.short_name
    if not (tests / "__init__.py").exists():
        plan.changes.made[tests / "__init__.py"] = ""
    plan.add(tests / f"test_{names.many}.py", source.rendered("model/test_routes.py", **values), extends=False)
    plan.add(plan.factory, source.rendered("model/factory.py", **values), extends=False)
    if module.name != "app.auth":  # the routes ask it who is calling
        manifest = module.path / "module.toml"
        before = plan.changes.text_of(manifest)
        if (after := with_dependency(before, module_named("auth").name)) != before:
            plan.changes.changed[manifest] = after
    if not force:
        plan.changes.refuse_overwriting()
    return plan


def make_model(plan: ModelPlan) -> list[Path]:
    """Write the files and the revision; the path of the revision."""
    is_shared = plan.module.migrations == SHARED
    base, timeline = (PROJECT_ROOT, SHARED) if is_shared else (plan.module.path, plan.module.short_name)
    written: list[Path] = []

    def finish() -> list[Path]:
        written.extend(write_documents(plan.names.words_many, timeline, plan.table))
        return written

    carry_out(plan.changes, finish, base / "migrations" / "versions")
    return written


def _values(plan: ModelPlan, fields: list[FieldSpec]) -> dict[str, Any]:
    listable = [field for field in fields if field.kind.listable]
    times = ("created_at", "updated_at")
    return {
        "n": plan.names,
        "module": plan.module.short_name,
        "table": plan.table,
        "prefix": _prefix(plan.names, plan.module),
        "fields": fields,
        "required": [field.name for field in fields if not field.nullable],
        "nullable": [field.name for field in fields if field.nullable],
        "uniques": [field.name for field in fields if "unique" in field.flags],
        "sorts": ["id", *(field.name for field in listable if field.kind.indexable), *times],
        "filters": ["id", *(field.name for field in listable), *times],
        "imports": {
            "model": _lines(field.kind.imports for field in fields),
            "schema": _lines(field.schema_imports for field in fields),
            "factory": _lines(field.kind.factory_imports for field in fields),
        },
        "at": {layer: plan.place(layer)[0] for layer in LAYERS}
        | {"auth": "app.auth.deps" if plan.module.name == "app.auth" else "app.auth"},
        "factory_module": plan.factory.stem,
    }


def _lines(groups: Iterable[Iterable[str]]) -> list[str]:
    return sorted({line for group in groups for line in group})


def _prefix(names: Names, module: Module) -> str:
    """`/shop/orders`; `/orders` for the model that the module is named after.

    Where that would lie beside `/orders/{order_id}`, the path is one word: each must know its methods.
    """
    document = PROJECT_ROOT / "docs" / "openapi.json"
    paths = json.loads(document.read_text(encoding="utf-8"))["paths"] if document.is_file() else {}
    served = {path.removeprefix(get_settings().API_V1_STR) for path in paths}
    own = "/" + module.short_name.replace("_", "-")
    last = names.many.removeprefix(module.table_prefix).replace("_", "-")
    if own == f"/{last}" and not any(path.startswith(f"{own}/") for path in served):
        found = own
    else:
        found = f"{own}-{last}" if own in served else f"{own}/{last}"
    if found in served:
        raise GeneratorError(f"{found} is served already: choose another name, or another --plural")
    return found


def _add_router(plan: ModelPlan, values: dict[str, Any]) -> None:
    path = plan.module.path / "routers.py"
    before = plan.changes.text_of(path) or f'"""Everything this module serves."""\n\n{_ROUTER}\n'
    shown = plan.changes.shown(path)
    source.check_parses(before, shown)
    if _ROUTER not in before:
        raise GeneratorError(f"{shown}: write {_ROUTER} there, and include the routers that are there")
    text = source.merged(before, source.rendered("model/routers.py", **values)).rstrip()
    target = plan.changes.changed if path.exists() else plan.changes.made
    target[path] = f"{text}\nrouter_v1.include_router({plan.names.many}_router)\n"


def _check_identifiers(table: str, fields: Sequence[FieldSpec]) -> None:
    for name in (table, *(f"uq_{table}_{field.name}" for field in fields if field.flags & {"unique", "index"})):
        if len(name) > MAX_IDENTIFIER:
            raise GeneratorError(
                f"{name} has {len(name)} characters, PostgreSQL takes {MAX_IDENTIFIER}: shorten a name"
            )
