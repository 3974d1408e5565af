"""The snippets of the docs, as files of a module, cross no boundary."""

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from app.core.configs import PROJECT_ROOT
from app.core.modules import present_modules
from tests.contract.docs_module import PageModule
from tests.contract.docs_page import snippets
from tools.boundaries import import_violations
from tools.boundaries.imports import all_imports
from tools.boundaries.violations import Exceptions, Violation

pytestmark = pytest.mark.once

PAGES = [page for page in (PROJECT_ROOT / "README.md", *sorted(PROJECT_ROOT.glob("docs/*.md"))) if [*snippets(page)]]
Judge = Callable[..., dict[Path, list[str]]]


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Judge]:
    """Put the files of pages among the application's, of which only names matter; what crosses a boundary, by page."""
    packages: list[str] = []

    def check(*pages: Path) -> dict[Path, list[str]]:
        folder = tmp_path_factory.mktemp("docs")
        packages.append(package := folder.name)
        modules = {page: PageModule(page) for page in pages}
        _write(folder / package, modules)
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(folder)
            found = _violations(package, folder)
        return {
            page: [f"{one.rule} {one.message}".replace(package, "app") for one in found if _is_in(one, module)]
            for page, module in modules.items()
        }

    yield check
    for name in [name for name in sys.modules if name.partition(".")[0] in packages]:
        del sys.modules[name]


def _write(package: Path, pages: Mapping[Path, PageModule]) -> None:
    texts = {str(file.relative_to(PROJECT_ROOT / "app")): "" for file in PROJECT_ROOT.glob("app/**/*.py")}
    for manifest in PROJECT_ROOT.glob("app/*/module.toml"):
        texts[f"{manifest.parent.name}/module.toml"] = manifest.read_text(encoding="utf-8")
    for page, module in pages.items():
        for path, text in module.sources().items():
            texts[path] = texts.get(path, "") + text
            texts.setdefault(f"{Path(path).parts[0]}/module.toml", f"depends_on = {_modules_in(page)}")
    for path, text in texts.items():
        file = package / path
        if not file.parent.exists():
            file.parent.mkdir(parents=True)
            (file.parent / "__init__.py").touch()
        file.write_text(re.sub(r"\bapp\b(?=\.| import)", package.name, text))


def _modules_in(page: Path) -> list[str]:
    """What the manifest of a page's module declares: the modules that its snippets import from."""
    known = {module.name for module in present_modules()}
    return sorted(known & set(re.findall(r"from (app\.\w+)", page.read_text(encoding="utf-8"))))


def _violations(package: str, root: Path) -> list[Violation]:
    """The rules about imports; docs_page.py asks M6, which needs the tables themselves."""
    modules = {module.short_name: module for module in present_modules(root, package)}
    found = set(import_violations(all_imports(package, root), modules, Exceptions(modules.values())))
    return sorted(one for one in found if one.rule != "M8" or ".usage " not in one.message)  # which is no file at all


def _is_in(violation: Violation, module: PageModule) -> bool:
    return violation.file.partition("/")[2] in module.files


@pytest.fixture(scope="module")
def found(judge: Judge) -> dict[Path, list[str]]:
    """What the pages cross."""
    return judge(*PAGES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_snippets_stay_within_the_boundaries(page: Path, found: dict[Path, list[str]]) -> None:
    assert found[page] == []


BREACHES = {
    "M1": (
        "from app.auth.models import User\n\nasync def can_x(user: User) -> None: ...",
        "policies imports app.auth.models",
    ),
    "M1 in a test's snippet": (
        "from app.auth.models import User\n\nclass XService:\n    user: User\n\nawait client.get('/')",
        "services imports app.auth.models",
    ),
    "M1 in a file": (
        "# app/shop/routers.py\nfrom app.auth import services",
        "app.shop.routers imports app.auth.services",
    ),
    "M1 unused": ("from app.auth.models import User", "usage imports app.auth.models"),
    "M2": ("# app/audit/schemas.py\nfrom app.shop import Order", "app.audit.schemas imports app.shop, which is not in"),
    "M4": (
        "class X(ListParams):\n    def f(self): XService\n\nclass XService: ...",
        "M4 app.docs_{page}.schemas imports app.docs_{page}.services: services is a layer above schemas",
    ),
    "M4 policy": (
        "from app.auth import ActiveUser\n"
        "Shop = Annotated[int, 0]\n"
        "async def can_x(shop: Shop) -> None: ...\n"
        "class XService:\n    async def f(self): await can_x(1)",
        "M4 app.docs_{page}.policies imports app.docs_{page}.deps: services ask this policy",
    ),
    "M5": ("from app.main import create_app\n\nclass XService: ...", "usage imports app.main, an entry point"),
}


TESTS = [
    "# tests/shop/test_x.py\nfrom app.auth.models import User\nUser()",
    "from app.auth.models import User\nfrom tests.utils import login_user\nUser()",
    "from app.auth.models import User\nassert await db.get(User, 1)",
]


@pytest.fixture(scope="module")
def planted(judge: Judge, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What crosses a boundary on a page for each of these snippets, by the snippet."""
    folder = tmp_path_factory.mktemp("pages")
    files = "```python\n# app/shop/__init__.py\nclass Order: ...\n```\n"
    pages: dict[Path, str] = {}
    for code in [*(code for code, _ in BREACHES.values()), *TESTS]:
        page = folder / f"page{len(pages)}.md"
        page.write_text(f"{files}```python\n{code}\n```\n")
        pages[page] = code
    return {pages[page]: lines for page, lines in judge(*pages).items()}


@pytest.mark.parametrize(("code", "message"), BREACHES.values(), ids=BREACHES)
def test_a_breach_in_a_page_is_found(planted: dict[str, list[str]], code: str, message: str) -> None:
    (found,) = planted[code]
    assert message in re.sub(r"docs_page\d+", "docs_{page}", found)


@pytest.mark.parametrize("code", TESTS)
def test_a_test_may_see_the_inside(planted: dict[str, list[str]], code: str) -> None:
    assert planted[code] == []
