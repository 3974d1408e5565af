"""`kit routes` and `kit openapi`."""

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.console import fail, load_settings, say, settings_errors, show_json, show_table

if TYPE_CHECKING:
    from app.core.api.route_checks import Collision
    from app.core.api.routes import ListedRoute

MOUNTED, PACKAGE = "mounted", "package"
_FIX = (
    "ask for the user or for a permission (`user: ActiveUser`, `Depends(requires_permission(...))`), "
    "or open it to everybody: `dependencies=[public]` of app.core.api"
)


def openapi(
    check: Annotated[bool, typer.Option("--check", help="Compare instead of writing.")] = False,
) -> None:
    """Write the OpenAPI document to docs/openapi.json."""
    write_document("openapi.json", openapi_document, "kit openapi", check=check)


def openapi_document() -> str:
    """The OpenAPI document of the application, as JSON."""
    from app.main import create_app

    return json.dumps(create_app(run_jobs=False).openapi(), indent=2, ensure_ascii=False) + "\n"


def routes(
    path: Annotated[str, typer.Option("--path", help="Only paths that begin so.")] = "/",
    method: Annotated[str | None, typer.Option("--method", help="Only this method.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Exit with 1 where a route has a fault.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON for programs.")] = False,
) -> None:
    """List every route, who may call it and how often, with its faults.

    Faults are routes that no request can reach or that do not say who may call them, and undeclared permissions.
    """
    load_settings()
    with settings_errors(), redirect_stdout(sys.stderr):  # building it may log
        from app.main import app
    from app.core.api.route_checks import misplaced_limits, route_collisions
    from app.core.api.routes import listed_routes

    collisions = route_collisions(app.routes)
    chosen = [one for one in _accesses(listed_routes(app.routes)) if one[0].path.startswith(path)]
    rows = [
        row
        for route, access in chosen
        for row in _rows(route, access, collisions)
        if method is None or row["method"] in (method.upper(), "*")
    ]
    faults = [f"{one}." for one in collisions if one.hidden.path.startswith(path)]
    faults += [_unsaid(route) for route, access in chosen if not access]
    faults += _undeclared({name for route, _ in chosen for name in route.access}, everywhere=path == "/")
    doubts = [f"{one}." for one in misplaced_limits(app.routes) if one.route.path.startswith(path)]
    if as_json:
        show_json(rows)
    elif not rows:
        typer.echo("No route fits.")
    else:
        show_table(("METHOD", "PATH", "ACCESS", "LIMITS", "MODULE", "ENDPOINT", ""), map(_cells, rows))
    if check or not as_json:
        for fault in faults + doubts:
            typer.secho(f"\n{fault}", fg=typer.colors.YELLOW, err=check)
    if check and faults:
        raise typer.Exit(1)


def _accesses(
    routes: "Iterable[ListedRoute]", inside: tuple[str, ...] = ()
) -> "Iterator[tuple[ListedRoute, tuple[str, ...]]]":
    """Every route and who may call it; `inside` is for those of a mounted application that do not say."""
    from app.core.api.routes import mounted_routes
    from app.core.modules import installed_modules

    packages = {module.name for module in installed_modules() if module.external}
    for route in routes:
        package = (PACKAGE,) if route.name.partition(":")[0].partition(".")[0] in packages else ()
        yield route, route.access or inside or ((MOUNTED,) if route.is_mount else package)
        if route.is_mount:
            yield from _accesses(mounted_routes(route), (MOUNTED,))


def _unsaid(route: "ListedRoute") -> str:
    from app.core.api.route_checks import place_of

    methods = "/".join(sorted(route.methods))
    return f"{place_of(route.endpoint)}: {methods} {route.path} does not say who may call it\n    Fix: {_FIX}."


def _undeclared(names: set[str], *, everywhere: bool) -> list[str]:
    """The permissions that routes, or policies anywhere, ask for although no module declares them."""
    from app.core.identity import AUTHENTICATED, PUBLIC, asked_permissions
    from app.core.modules import declared_permissions

    asked = names | (asked_permissions if everywhere else set())
    known = {*declared_permissions(), AUTHENTICATED, PUBLIC}
    return [
        f"No module declares the permission {name}, which a policy asks for\n"
        f'    Fix: write permissions = [Permission("{name}", "...")] in permissions.py of the module that asks.'
        for name in sorted(asked - known)
        if not name.startswith("role:")
    ]


def _rows(route: "ListedRoute", access: tuple[str, ...], collisions: "list[Collision]") -> "Iterator[dict[str, Any]]":
    from app.core.api import ConfigurableRateLimiter

    methods = route.methods - {"HEAD"} or route.methods  # every GET answers HEAD
    for method in ["*"] if route.is_mount else sorted(methods):
        hiding = (one for one in collisions if one.hidden.name == route.name and one.hidden.path == route.path)
        never = next((str(one) for one in hiding if route.is_mount or method in one.methods), None)
        yield {
            "method": method,
            "path": route.path,
            "access": list(access),
            "limits": [str(call) for call in route.calls if isinstance(call, ConfigurableRateLimiter)],
            "module": _module_of(route.name),
            "endpoint": route.name,
            "collision": never,
        }


def _module_of(name: str) -> str | None:
    from app.core.modules import installed_modules

    names = [module.name for module in installed_modules()] + ["app.core"]
    return next((module for module in names if f"{name.partition(':')[0]}.".startswith(f"{module}.")), None)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    access = ", ".join(row["access"]) or "not said"
    never = "never reached" if row["collision"] else ""
    function = row["endpoint"].partition(":")[2]
    return (row["method"], row["path"], access, ", ".join(row["limits"]), row["module"] or "-", function, never)


def write_document(name: str, render: Callable[[], str], command: str, *, check: bool) -> None:
    """Write a document of docs/ from the code, or compare it and end the program where it differs."""
    # With the settings of the test suite: a developer's .env must not end up in a committed document.
    os.environ["ENVIRONMENT"] = "testing"
    load_settings()
    from app.core.configs import PROJECT_ROOT

    with settings_errors():
        text = render()
    path = PROJECT_ROOT / "docs" / name
    if not check:
        path.write_text(text, encoding="utf-8")
        say(f"{path} is written.")
    elif path.exists() and path.read_text(encoding="utf-8") == text:
        say(f"docs/{name} is what the code says.")
    else:
        fail(f"docs/{name} is not what the code says. If the change is meant: .venv/bin/{command}")
