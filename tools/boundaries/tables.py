"""M6, on the mapped classes: no foreign key, relationship or exported model leads from one module into another."""

import importlib
import inspect
import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, TypeGuard, get_args

from sqlalchemy import Table
from sqlalchemy.orm import Mapper

from app.core.exceptions import ConfigError
from app.core.modules import Module, table_owner
from tools.boundaries.violations import Exceptions, Violation

CORE = "core"
IDS_OF_USERS = re.compile(r"(.*_)?(user|owner|actor|author|subject|member|by)_id")
"""Names of columns that say whose a row is."""


class Definition(NamedTuple):
    """A table, mapped or plain: the module it belongs to and the Python name it has there."""

    owner: str
    name: str
    table: Table
    cls: type | None


def table_violations(
    package: str, root: Path, modules: Mapping[str, Module], exceptions: Exceptions
) -> Iterator[Violation]:
    """M6: each table and each root against the modules they belong to, imported for this."""
    try:
        yield from _Tables(package, root, modules).faults(exceptions)
    except Exception as exc:  # whatever the modules' own code raises
        reason = str(exc).partition("\n")[0].rstrip(".")
        yield Violation(
            *_origin(exc, package, root),
            "M6",
            f"the tables cannot be read: {type(exc).__name__}: {reason}",
            "make the modules importable",
        )


def _origin(exc: Exception, package: str, root: Path) -> tuple[str, int]:
    """The last line of the package that led to an error."""
    place = (f"{package}/{CORE}/models.py", 1)
    for frame in traceback.extract_tb(exc.__traceback__):
        path = Path(frame.filename).resolve()
        if path.is_relative_to(root / package) and not path.is_relative_to(Path(__file__).parent):
            place = (str(path.relative_to(root)), frame.lineno or 1)
    return place


def unanswered_tables(package: str, root: Path, modules: Mapping[str, Module]) -> Iterator[Violation]:
    """Modules that keep ids of users and have no personal_data.py; none where the tables cannot be read."""
    with suppress(Exception):  # table_violations says so
        yield from _Tables(package, root, modules).unanswered()


class _Tables:
    """The tables of the modules below a package."""

    def __init__(self, package: str, root: Path, modules: Mapping[str, Module]) -> None:
        self._package = package
        self._root = root
        self._owners = (CORE, *modules)
        self._modules = modules.values()
        with suppress(ConfigError):  # the start says so too; the rules look at each module that is there
            importlib.import_module(f"{package}.{CORE}.models")
        for module in modules.values():
            for part in ("models", *module.manifest.exposes):
                module.part(part)
        self._definitions = list(self._defined())
        self._declared = {definition.table.fullname: definition.owner for definition in self._definitions}

    def faults(self, exceptions: Exceptions) -> Iterator[Violation]:
        """Everything that M6 refuses and no manifest excuses."""
        for definition in self._definitions:
            for target, line, message, fix in (*self._references(definition), *self._names(definition)):
                if not exceptions.allow("M6", definition.name, target):
                    yield Violation(self._file(definition.name), line, "M6", message, fix)
        for module in self._modules:
            for name in module.public:
                yield from self._exports(sys.modules[name], exceptions)

    def unanswered(self) -> Iterator[Violation]:
        """A warning for each module without an answer, at the first of its columns that name a user."""
        for module in self._modules:
            columns = [
                (definition, column.key)
                for definition in self._definitions
                for column in definition.table.columns
                if definition.owner == module.short_name and IDS_OF_USERS.fullmatch(column.name)
            ]
            if columns and not (module.path / "personal_data.py").is_file():
                names = ", ".join(f"{definition.table.name}.{name}" for definition, name in columns)
                yield Violation(
                    self._file(columns[0][0].name),
                    _line(*columns[0]),
                    "P1",
                    f"{module.name} keeps ids of users ({names}) and answers neither export nor erasure",
                    f"write {module.name.replace('.', '/')}/personal_data.py: docs/modules.md#personal-data",
                )

    def _defined(self) -> Iterator[Definition]:
        mapped: set[Table] = set()
        plain: dict[Table, Definition] = {}
        for module in sorted(name for name in sys.modules if _owner(name, self._package) in self._owners):
            owner = str(_owner(module, self._package))
            for name, value in sorted(vars(sys.modules[module]).items()):
                if isinstance(value, Table):
                    plain.setdefault(value, Definition(owner, f"{module}.{name}", value, None))
                elif _is_model(value) and value.__module__ == module and isinstance(value.__table__, Table):
                    mapped.add(value.__table__)
                    yield Definition(owner, f"{module}.{name}", value.__table__, value)
        yield from (definition for table, definition in plain.items() if table not in mapped)

    def _references(self, definition: Definition) -> Iterator[tuple[str, int, str, str]]:
        for other, target, attribute, says in self._uses(definition):
            if other in self._owners and other not in (CORE, definition.owner):
                yield (
                    target,
                    _line(definition, attribute),
                    f"{definition.name}.{attribute} {says} of {other}",
                    f"keep the ids without it, and ask {other} through its gateway",
                )

    def _uses(self, definition: Definition) -> Iterator[tuple[str | None, str, str, str]]:
        """The module, the table or class in it, our attribute that leads there, and how."""
        for key in definition.table.foreign_keys:
            table = key.target_fullname.rpartition(".")[0]
            other = self._declared.get(table) or table_owner(table.rpartition(".")[2], self._owners)
            yield other, f"{self._package}.{other}", key.parent.key, f"has a foreign key to {table}, a table"
        mapper: Mapper[Any] | None = getattr(definition.cls, "__mapper__", None)
        for relation in mapper.relationships if mapper else ():
            if relation.parent is mapper:
                model, between = relation.mapper.class_, str(relation.secondary)
                name, says = (
                    f"{model.__module__}.{model.__qualname__}",
                    f"is a relationship to {model.__name__}, a model",
                )
                yield _owner(model.__module__, self._package), name, relation.key, says
                other = self._declared.get(between)
                yield other, f"{self._package}.{other}", relation.key, f"goes by way of {between}, a table"

    def _names(self, definition: Definition) -> Iterator[tuple[str, int, str, str]]:
        table, owner = definition.table.name, definition.owner
        if table_owner(table, self._owners) != owner:
            yield (
                table,
                _line(definition, "__tablename__"),
                f"{definition.name} is the table {table}, whose name does not say that it belongs to {owner}",
                f"call it {owner}_<name>, with no longer name of a module in front: migrations go by it",
            )

    def _exports(self, public: ModuleType, exceptions: Exceptions) -> Iterator[Violation]:
        for name, value in sorted(vars(public).items()):
            found = next(_models_in(value), None)
            if found is None:
                continue
            target = f"{public.__name__}.{name}" if isinstance(found, Table) else f"{found.__module__}.{found.__name__}"
            if not exceptions.allow("M6", public.__name__, target):
                yield Violation(
                    self._file(public.__name__),
                    _first(inspect.getsource(public).splitlines(), rf".*\b{name}\b"),
                    "M6",
                    f"{public.__name__} exports the model {name}",
                    "export a schema with what others may know, and hand that out through the gateway",
                )

    def _file(self, name: str) -> str:
        while name not in sys.modules:
            name = name.rpartition(".")[0]
        return str(Path(str(sys.modules[name].__file__)).resolve().relative_to(self._root))


def _models_in(value: object) -> Iterator[Table | type[Any]]:
    """The models of an exported value: it may be one, or a type made of some, as `Annotated[User, ...]` is."""
    if isinstance(value, Table) or _is_model(value):
        yield value
    for part in get_args(value):
        yield from _models_in(part)


def _is_model(value: object) -> TypeGuard[type[Any]]:
    return isinstance(value, type) and "__mapper__" in vars(value)


def _owner(python_name: str, package: str) -> str | None:
    parts = python_name.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == package else None


def _line(definition: Definition, attribute: str) -> int:
    if definition.cls is None:
        lines = inspect.getsource(sys.modules[definition.name.rpartition(".")[0]]).splitlines()
        return _first(lines, rf"{definition.name.rpartition('.')[2]}\b")
    lines, start = inspect.getsourcelines(definition.cls)
    return start + _first(lines, rf"\s+{attribute}\s*[:=]") - 1


def _first(lines: list[str], pattern: str) -> int:
    """The number of the first line that fits, or 1."""
    return next((number for number, line in enumerate(lines, 1) if re.match(pattern, line)), 1)
