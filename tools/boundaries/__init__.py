"""The boundaries of the modules: six rules, for every module that is there.

| rule | says |
|---|---|
| M1 | only the root of another module is imported, and what its manifest exposes |
| M2 | only modules named in `depends_on` are used |
| M3 | modules do not use each other in a circle |
| M4 | layers inside a module point down; a service may ask a policy |
| M5 | core uses no module, and no module an entry point or a registry |
| M6 | no foreign key, relationship or exported model crosses from one module into another |
| E1 | an external package imports nothing of the service |
"""

from pathlib import Path

from app.core.configs import PROJECT_ROOT
from app.core.modules import present_modules
from tools.boundaries.circles import asked_policies, circles
from tools.boundaries.imports import all_imports
from tools.boundaries.isolation import isolation_violations
from tools.boundaries.rules import crossing_imports, unseen
from tools.boundaries.tables import table_violations
from tools.boundaries.violations import Exceptions, Violation

__all__ = ["Violation", "boundary_violations", "isolation_violations"]


def boundary_violations(package: str = "app", root: Path = PROJECT_ROOT) -> list[Violation]:
    """Every breach in `package`, a folder of `root`, by place. It imports the modules, for M6."""
    root = root.resolve()
    modules = {module.short_name: module for module in present_modules(root, package)}
    exceptions = Exceptions(modules.values())
    seen, imports = all_imports(package, root)
    found = {
        *unseen(package, root, seen, modules),
        *crossing_imports(imports, modules, exceptions),
        *circles(imports, modules, exceptions),
        *asked_policies(imports, exceptions),
        *table_violations(package, root, modules, exceptions),
    }
    return sorted(found | set(exceptions.unused()))
