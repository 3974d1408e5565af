"""What `kit model new` writes: a model and every layer above it, or its share of layers that are there."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.core.configs import PROJECT_ROOT, get_settings
from app.core.migrations.timelines import SHARED
from app.core.modules import Module, installed_modules
from tools.generators import source
from tools.generators.changes import Changes
from tools.generators.errors import GeneratorError
from tools.generators.fields import FieldSpec, read_fields
from tools.generators.modules import with_dependency
from tools.generators.names import Names, model_names
from tools.generators.project import carried_out, module_named
from tools.generators.revisions import check_timeline, write_revision

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


def plan_model(module_name: str, name: str, texts: list[str], *, plural: str | None, force: bool) -> ModelPlan:
    """The files of a new model; GeneratorError where it cannot be made."""
    module = module_named(module_name)
    if module.name not in [installed.name for installed in installed_modules()]:
        raise GeneratorError(f"MODULES leaves {module.name} out: add it, or its tables get no revision")
    names, fields = model_names(name, plural), read_fields(texts)
    table = names.many if _is_prefixed(names, module) else f"{module.table_prefix}{names.many}"
    _check_identifiers(table, fields)
    changes = Changes(PROJECT_ROOT)
    values = _values(module, names, fields, table)
    for layer in LAYERS:
        _add_layer(changes, module, layer, names, values)
    _add_router(changes, module, names, values)
    _add_tests(changes, module, names, values)
    _add_dependency(changes, module)
    for path, text in changes.made.items():
        _check_clash(changes, path, "", text)
    if not force:
        changes.refuse_overwriting()
    return ModelPlan(module, names, table, changes)


def make_model(plan: ModelPlan) -> list[Path]:
    """Write them, and the revision; its path."""
    timeline = SHARED if plan.module.migrations == "shared" else plan.module.short_name
    check_timeline(timeline)
    versions = _versions(plan.module)
    with carried_out(plan.changes, versions) as further:
        written = write_revision(plan.names.words_many, timeline)
        further.extend(written)
    return written


def factory_file(module: Module, names: Names) -> Path:
    """`tests/factories/<model>.py`, with the module in front where another module has a model of that name."""
    folder = PROJECT_ROOT / "tests" / "factories"
    usual = folder / f"{names.one}.py"
    is_free = not usual.exists() or f"from {module.name}." in usual.read_text(encoding="utf-8")
    return usual if is_free else folder / f"{module.short_name}_{names.one}.py"


def _is_prefixed(names: Names, module: Module) -> bool:
    return names.many.startswith(module.table_prefix)


def _prefix(names: Names, module: Module) -> str:
    """`/shop/orders`; `/orders` for the model that the module is named after.

    Where that would lie beside `/orders/{order_id}`, the path is one word: each must know its methods.
    """
    served = _served()
    own = "/" + module.short_name.replace("_", "-")
    last = names.many.removeprefix(module.table_prefix).replace("_", "-")
    if own == f"/{last}" and not any(path.startswith(f"{own}/") for path in served):
        found = own
    else:
        found = f"{own}-{last}" if own in served else f"{own}/{last}"
    if found in served:
        raise GeneratorError(f"{found} is served already: choose another name, or another --plural")
    return found


def _served() -> set[str]:
    """The paths of the API, without its prefix."""
    document = PROJECT_ROOT / "docs" / "openapi.json"
    paths = json.loads(document.read_text(encoding="utf-8"))["paths"] if document.is_file() else {}
    return {path.removeprefix(get_settings().API_V1_STR) for path in paths}


def _values(module: Module, names: Names, fields: list[FieldSpec], table: str) -> dict[str, Any]:
    listable = [field for field in fields if field.kind.listable]
    times = ("created_at", "updated_at")
    return {
        "n": names,
        "module": module.short_name,
        "table": table,
        "prefix": _prefix(names, module),
        "fields": fields,
        "required": [field.name for field in fields if not field.nullable],
        "nullable": [field.name for field in fields if field.nullable],
        "uniques": [field.name for field in fields if field.unique],
        "sorts": ["id", *(field.name for field in listable if field.sortable), *times],
        "filters": ["id", *(field.name for field in listable), *times],
        "imports": {
            "model": _lines(field.kind.imports for field in fields),
            "schema": _lines(field.schema_imports for field in fields),
            "factory": _lines(field.kind.factory_imports for field in fields),
        },
        "at": {layer: _place(module, layer, names)[0] for layer in LAYERS}
        | {"auth": "app.auth.deps" if module.name == "app.auth" else "app.auth"},
        "factory_module": factory_file(module, names).stem,
    }


def _lines(groups: Iterable[Iterable[str]]) -> list[str]:
    return sorted({line for group in groups for line in group})


def _place(module: Module, layer: str, names: Names) -> tuple[str, Path]:
    """Import name and file of a layer's new part: a file of its own where the layer is a folder."""
    folder = module.path / layer
    if not folder.is_dir():
        return f"{module.name}.{layer}", folder.with_suffix(".py")
    if layer == "models":
        return f"{module.name}.models", folder / f"{names.one}.py"
    inner = folder / "v1" if layer == "routes" and (folder / "v1").is_dir() else folder
    dotted = ".".join(inner.relative_to(module.path).parts)
    return f"{module.name}.{dotted}.{names.many}", inner / f"{names.many}.py"


def _add_layer(changes: Changes, module: Module, layer: str, names: Names, values: dict[str, Any]) -> None:
    path = _place(module, layer, names)[1]
    _add(changes, path, source.rendered(f"model/{layer}.py", **values), extends=path.parent == module.path)
    if layer == "models" and path.parent != module.path:
        root = path.parent / "__init__.py"
        line = f"from {module.name}.models.{names.one} import {names.cls}\n"
        changes.change(root, source.export(source.merged(changes.text_of(root), line), names.cls))


def _add_router(changes: Changes, module: Module, names: Names, values: dict[str, Any]) -> None:
    path = module.path / "routers.py"
    before = changes.text_of(path) or f'"""Everything this module serves."""\n\n{_ROUTER}\n'
    source.check_parses(before, changes.shown(path))
    if _ROUTER not in before:
        raise GeneratorError(f"{changes.shown(path)}: write {_ROUTER} there, and include the routers that are there")
    text = source.merged(before, source.rendered("model/routers.py", **values)).rstrip()
    text += f"\nrouter_v1.include_router({names.many}_router)\n"
    (changes.change if path.exists() else changes.make)(path, text)


def _add_tests(changes: Changes, module: Module, names: Names, values: dict[str, Any]) -> None:
    folder = PROJECT_ROOT / "tests" / module.short_name
    if not (folder / "__init__.py").exists():
        changes.make(folder / "__init__.py", "")
    changes.make(folder / f"test_{names.many}.py", source.rendered("model/test_routes.py", **values))
    changes.make(factory_file(module, names), source.rendered("model/factory.py", **values))


def _add_dependency(changes: Changes, module: Module) -> None:
    if module.name == "app.auth":
        return
    module_named("auth")  # the routes ask it who is calling
    path = module.path / "module.toml"
    before = changes.text_of(path)
    if (after := with_dependency(before, "app.auth")) != before:
        changes.change(path, after)


def _add(changes: Changes, path: Path, text: str, *, extends: bool) -> None:
    """Make the file or, where it may, add to the one that is there."""
    if not (extends and path.exists()):
        changes.make(path, text)
        return
    before = changes.text_of(path)
    source.check_parses(before, changes.shown(path))
    _check_clash(changes, path, before, text)
    changes.change(path, source.merged(before, text))


def _check_clash(changes: Changes, path: Path, before: str, text: str) -> None:
    if taken := source.clash(before, text):
        raise GeneratorError(f"{changes.shown(path)} uses the name {taken} already: choose another for the model")


def _check_identifiers(table: str, fields: list[FieldSpec]) -> None:
    for name in (table, *(f"uq_{table}_{field.name}" for field in fields if field.flags & {"unique", "index"})):
        if len(name) > MAX_IDENTIFIER:
            raise GeneratorError(
                f"{name} has {len(name)} characters, PostgreSQL takes {MAX_IDENTIFIER}: shorten a name"
            )


def _versions(module: Module) -> Path:
    base = PROJECT_ROOT if module.migrations == "shared" else module.path
    return base / "migrations" / "versions"
