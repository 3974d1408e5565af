"""`kit routes`."""

import re
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.console import load_settings, settings_errors, show_json, show_table

if TYPE_CHECKING:
    from fastapi import FastAPI

    from app.core.api.route_checks import Collision
    from app.core.api.routes import ListedRoute

_PERMISSION = re.compile(r"`([\w-]+:[\w-]+)`")
_IMPLIED = "HEAD"


def routes(
    path: Annotated[str, typer.Option("--path", help="Only paths that begin so.")] = "/",
    method: Annotated[str | None, typer.Option("--method", help="Only this method.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Exit with 1 where one is never reached.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON for programs.")] = False,
) -> None:
    """List every route, who may call it and how often, and those that no request can reach."""
    load_settings()
    app = built_app()
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
        _print(rows, faults + doubts)
    if check and faults:
        raise typer.Exit(1)


def built_app() -> "FastAPI":
    """The application, its log on the standard error; ends the program with one line where it cannot be built."""
    with settings_errors(), redirect_stdout(sys.stderr):
        from app.main import app
    return app


def _rows(route: "ListedRoute", collisions: "list[Collision]") -> "Iterator[dict[str, Any]]":
    methods = route.methods - {_IMPLIED} or route.methods
    for method in ["*"] if route.is_mount else sorted(methods):
        hiding = (one for one in collisions if one.hidden.name == route.name and one.hidden.path == route.path)
        never = next((str(one) for one in hiding if route.is_mount or method in one.methods), None)
        yield {
            "method": method,
            "path": route.path,
            "auth": any(map(_is_security, route.calls)),
            "permissions": sorted({name for call in route.calls for name in _permissions(call)}),
            "limits": [str(call) for call in route.calls if _is_limit(call)],
            "module": _module_of(route.name),
            "endpoint": route.name,
            "collision": never,
        }


def _is_security(call: Any) -> bool:
    from fastapi.security.base import SecurityBase

    return isinstance(call, SecurityBase)


def _is_limit(call: Any) -> bool:
    from app.core.api import ConfigurableRateLimiter

    return isinstance(call, ConfigurableRateLimiter)


def _permissions(call: Any) -> list[str]:
    """Those a policy asks for: its docstring is the question it answers."""
    is_policy = ".policies" in getattr(call, "__module__", "")
    return _PERMISSION.findall(call.__doc__ or "") if is_policy else []


def _module_of(name: str) -> str | None:
    from app.core.modules import installed_modules

    names = [module.name for module in installed_modules()] + ["app.core"]
    return next((module for module in names if f"{name.partition(':')[0]}.".startswith(f"{module}.")), None)


def _print(rows: list[dict[str, Any]], faults: list[str]) -> None:
    headings = ("METHOD", "PATH", "ACCESS", "LIMITS", "MODULE", "ENDPOINT", "")
    show_table(headings, [_cells(row) for row in rows])
    for fault in faults:
        typer.secho(f"\n{fault}.", fg=typer.colors.YELLOW)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    access = ", ".join(row["permissions"]) or ("login" if row["auth"] else "anybody")
    never = "never reached" if row["collision"] else ""
    function = row["endpoint"].partition(":")[2]
    return (row["method"], row["path"], access, ", ".join(row["limits"]), row["module"] or "-", function, never)
