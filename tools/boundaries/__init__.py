"""The boundaries of the modules and of core: eight rules, with no list to maintain.

| rule | says |
|---|---|
| M1 | only the root of another module is imported, and what its manifest exposes |
| M2 | only modules named in `depends_on` are used |
| M3 | modules do not use each other in a circle |
| M4 | layers inside a module point down, and so do the floors of core; a service may ask a policy and push a task |
| M5 | core uses no module, no module an entry point or a registry, and nothing uses `tools` |
| M6 | no foreign key, relationship or exported model crosses from one module into another |
| M7 | below the entry points no import is inside a function |
| M8 | files and folders beside each other do not import each other in a circle |
| E1 | an external package imports nothing of the service |
| P1 | a warning: a module that keeps ids of users answers export and erasure in `personal_data.py` |
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from app.core.configs import PROJECT_ROOT
from app.core.modules import Module, present_modules
from tools.boundaries.circles import module_circles, sibling_circles, used_by_services
from tools.boundaries.imports import Imports, all_imports
from tools.boundaries.isolation import isolation_violations
from tools.boundaries.rules import crossing_imports, hidden_imports, unseen
from tools.boundaries.tables import table_violations, unanswered_tables
from tools.boundaries.violations import Exceptions, Violation

__all__ = ["Violation", "boundary_violations", "isolation_violations", "personal_data_warnings"]


def boundary_violations(package: str = "app", root: Path = PROJECT_ROOT) -> list[Violation]:
    """Every breach in `package`, a folder of `root`, by place. It imports the modules, for M6."""
    root = root.resolve()
    modules = {module.short_name: module for module in present_modules(root, package)}
    exceptions = Exceptions(modules.values())
    imports = all_imports(package, root)
    found = {
        *unseen(package, root, imports.modules, modules),
        *import_violations(imports, modules, exceptions),
        *table_violations(package, root, modules, exceptions),
    }
    return sorted(found | set(exceptions.unused()))


def personal_data_warnings(package: str = "app", root: Path = PROJECT_ROOT) -> list[Violation]:
    """P1: modules whose tables say whose a row is, and that answer neither export nor erasure of a user."""
    root = root.resolve()
    modules = {module.short_name: module for module in present_modules(root, package)}
    return sorted(unanswered_tables(package, root, modules))


def import_violations(imports: Imports, modules: Mapping[str, Module], exceptions: Exceptions) -> Iterator[Violation]:
    """M1 to M5, M7 and M8, which imports alone show."""
    yield from crossing_imports(imports.found, modules, exceptions)
    yield from module_circles(imports.found, modules, exceptions)
    yield from used_by_services(imports.found, exceptions)
    yield from hidden_imports(imports.inside, exceptions)
    yield from sibling_circles(imports.found, exceptions)
