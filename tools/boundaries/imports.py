"""Find every import of a package: grimp's graph, and those that no import statement shows."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import resolve_name
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from app.core.exceptions import ConfigError
from app.core.modules.manifest import shown

if TYPE_CHECKING:
    from grimp import ImportGraph

TOOLS = "tools"
"""The package beside `app` for developers, which the production image leaves out."""


@dataclass(frozen=True, order=True)
class Import:
    """`importer` imports `imported`, at a line of a file."""

    file: str
    line: int
    importer: str
    imported: str


class Imports(NamedTuple):
    """The modules of a package, its imports of each other and of `tools`, and all those inside functions, by place."""

    modules: set[str]
    found: list[Import]
    inside: list[Import]


def all_imports(package: str, root: Path) -> Imports:
    """Read the imports of `package`, a folder of `root`.

    Relative, aliased and function-level ones count, those for the type checker too, and so do
    `import_module("app.shop.models")` and the `shop.models` that follows an `import app.shop as shop`.
    """
    trees = {path: _parsed(path, root) for path in sorted((root / package).rglob("*.py"))}
    graph = _graph(package)
    found: list[Import] = []
    inside: list[Import] = []
    for importer in graph.modules:
        file = file_of(importer, root)
        known = graph.find_modules_directly_imported_by(importer)
        for imported in known:
            for detail in graph.get_import_details(importer=importer, imported=imported):
                found.append(Import(file, detail["line_number"], importer, imported))
        tree = trees[root / file]
        hidden = _Hidden(importer, root / file, tree, graph.modules | {TOOLS})
        found += [Import(file, line, importer, name) for line, name in sorted(hidden.found) if name not in known]
        inside += [Import(file, line, importer, text) for line, text in sorted(_inside_functions(tree))]
    return Imports(graph.modules, sorted(found), sorted(inside))


def _inside_functions(tree: ast.Module) -> set[tuple[int, str]]:
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    nodes = {node for function in functions for node in ast.walk(function)}
    return {(node.lineno, ast.unparse(node)) for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)}


def file_of(module: str, root: Path) -> str:
    """Return the file of a Python module, relative to `root`."""
    path = root.joinpath(*module.split("."))
    root_file = path / "__init__.py"  # a folder without one may be left of a package that became a file
    return str((root_file if root_file.is_file() else path.with_suffix(".py")).relative_to(root))


def unseen_files(folder: Path) -> Iterator[Path]:
    """Python files below `folder` that are outside the graph, as a folder above them has no `__init__.py`.

    Revisions of a module with its own timeline are not meant to be imported.
    """
    for path in sorted(folder.rglob("*.py")):
        parents = [parent for parent in path.parents if parent.is_relative_to(folder)]
        if folder / "migrations" not in parents and not all((parent / "__init__.py").exists() for parent in parents):
            yield path


def _parsed(path: Path, root: Path) -> ast.Module:
    try:
        tree = ast.parse(path.read_bytes())
    except OSError as exc:
        raise ConfigError(f"{shown(path)}: cannot be read: {exc.strerror}") from exc
    except (SyntaxError, ValueError) as exc:
        raise ConfigError(f"{shown(path)}:{getattr(exc, 'lineno', None) or 1}: not valid Python") from exc
    for node in ast.walk(tree):  # grimp panics
        if isinstance(node, ast.ImportFrom) and node.level >= len(path.relative_to(root).parts):
            raise ConfigError(f"{shown(path)}:{node.lineno}: the relative import leads out of the package")
    return tree


def _graph(package: str) -> "ImportGraph":
    try:
        import grimp
    except ImportError as exc:
        raise ConfigError("boundaries are checked with grimp, a development tool: make setup") from exc
    return grimp.build_graph(package, cache_dir=None)


class _Hidden(ast.NodeVisitor):
    """Imports of one file by a name in a string, or by an attribute of an imported package; and those of `tools`."""

    def __init__(self, module: str, path: Path, tree: ast.Module, modules: set[str]) -> None:
        self.found: set[tuple[int, str]] = set()
        self._modules = modules
        self._package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        self._bound: dict[str, str] = {}
        for node in ast.walk(tree):  # all names first: a function may use what is imported below it
            if isinstance(node, ast.Import | ast.ImportFrom):
                self._bind(node)
        self.visit(tree)

    def _bind(self, node: ast.Import | ast.ImportFrom) -> None:
        for alias in node.names:
            base = alias.name
            if isinstance(node, ast.ImportFrom):
                base = self._absolute("." * node.level + (node.module or ""))
                self._bound[alias.asname or alias.name] = f"{base}.{alias.name}"
            elif alias.asname:
                self._bound[alias.asname] = alias.name
            else:
                self._bound[alias.name.partition(".")[0]] = alias.name.partition(".")[0]
            if base.partition(".")[0] == TOOLS:  # grimp has no other packages in its graph
                self.found.add((node.lineno, TOOLS))

    def visit_Attribute(self, node: ast.Attribute) -> None:
        names, inner = [node.attr], node.value
        while isinstance(inner, ast.Attribute):
            names.append(inner.attr)
            inner = inner.value
        if isinstance(inner, ast.Name) and self._bound.get(inner.id) in self._modules:
            self._add(node.lineno, ".".join([self._bound[inner.id], *reversed(names)]), above=self._bound[inner.id])
        else:
            self.visit(inner)

    def visit_Call(self, node: ast.Call) -> None:
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if self._bound.get(called, called).rpartition(".")[2] in ("import_module", "__import__"):
            given = {one.arg: one.value for one in node.keywords}
            given |= dict(zip(("name", "package"), node.args, strict=False))
            if name := _text(given.get("name")):
                self._add(node.lineno, self._absolute(name, _text(given.get("package"))))
        self.generic_visit(node)

    def _absolute(self, name: str, package: str = "") -> str:
        try:
            return resolve_name(name, package or self._package)
        except ImportError:  # it leads out of the top, and would fail when it runs
            return name

    def _add(self, line: int, name: str, above: str = "") -> None:
        """Note the module that `name` is, or is defined in, if that is not `above`."""
        while name not in self._modules and "." in name:
            name = name.rpartition(".")[0]
        if name in self._modules and name != above:
            self.found.add((line, name))


def _text(node: ast.AST | None) -> str:
    """Return the text written there: of an f-string what comes before the part that only running it tells."""
    text = node.values[0] if isinstance(node, ast.JoinedStr) and node.values else node
    return text.value if isinstance(text, ast.Constant) and isinstance(text.value, str) else ""
