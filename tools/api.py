"""`kit routes` and `kit openapi`."""

import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.console import fail, load_settings, say, settings_errors, show_json, show_table

if TYPE_CHECKING:
    from app.core.api.route_checks import Collision
    from app.core.api.routes import ListedRoute

_PERMISSION = re.compile(r"`([\w-]+:[\w-]+)`")


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
    check: Annotated[bool, typer.Option("--check", help="Exit with 1 where a route is never reached.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON for programs.")] = False,
) -> None:
    """List every route, who may call it and how often, and those that no request can reach."""
    load_settings()
    with settings_errors(), redirect_stdout(sys.stderr):  # building it may log
        from app.main import app
    from app.core.api.route_checks import misplaced_limits, route_collisions
    from app.core.api.routes import all_routes, listed_routes

    collisions = route_collisions(app.routes)
    rows = [
        row
        for route in all_routes(listed_routes(app.routes))
        if route.path.startswith(path)
        for row in _rows(route, collisions)
        if method is None or row["method"] in (method.upper(), "*")
    ]
    faults = [str(one) for one in collisions if one.hidden.path.startswith(path)]
    doubts = [str(one) for one in misplaced_limits(app.routes) if one.route.path.startswith(path)]
    if as_json:
        show_json(rows)
    elif not rows:
        typer.echo("No route fits.")
    else:
        show_table(("METHOD", "PATH", "ACCESS", "LIMITS", "MODULE", "ENDPOINT", ""), map(_cells, rows))
        for fault in faults + doubts:
            typer.secho(f"\n{fault}.", fg=typer.colors.YELLOW)
    if check and faults:
        raise typer.Exit(1)


def _rows(route: "ListedRoute", collisions: "list[Collision]") -> "Iterator[dict[str, Any]]":
    from fastapi.security.base import SecurityBase

    from app.core.api import ConfigurableRateLimiter

    methods = route.methods - {"HEAD"} or route.methods  # every GET answers HEAD
    for method in ["*"] if route.is_mount else sorted(methods):
        hiding = (one for one in collisions if one.hidden.name == route.name and one.hidden.path == route.path)
        never = next((str(one) for one in hiding if route.is_mount or method in one.methods), None)
        yield {
            "method": method,
            "path": route.path,
            "auth": any(isinstance(call, SecurityBase) for call in route.calls),
            "permissions": sorted({name for call in route.calls for name in _permissions(call)}),
            "limits": [str(call) for call in route.calls if isinstance(call, ConfigurableRateLimiter)],
            "module": _module_of(route.name),
            "endpoint": route.name,
            "collision": never,
        }


def _permissions(call: Any) -> list[str]:
    """The permissions that a policy asks for: its docstring is the question it answers."""
    is_policy = ".policies" in getattr(call, "__module__", "")
    return _PERMISSION.findall(call.__doc__ or "") if is_policy else []


def _module_of(name: str) -> str | None:
    from app.core.modules import installed_modules

    names = [module.name for module in installed_modules()] + ["app.core"]
    return next((module for module in names if f"{name.partition(':')[0]}.".startswith(f"{module}.")), None)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    access = ", ".join(row["permissions"]) or ("login" if row["auth"] else "anybody")
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
