"""Whether the application can be built, and its document and routes tell the truth."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from app.cli.doctor.findings import Finding, fault, ok, or_ok, reason, skipped, warning

if TYPE_CHECKING:
    from fastapi import FastAPI


def application() -> list[Finding]:
    """It can be built, every token URL of its document answers, and every route can be reached."""
    from app.core.configs import unsafe_settings

    if unsafe_settings():
        return [skipped("application", "refuses to start with these settings")]
    try:
        from app.core import listeners, tasks  # noqa: F401
        from app.main import app
    except Exception as exc:
        fix = "kit module validate, or python -c 'import app.main' for the whole story"
        return [fault("application", f"cannot be built: {type(exc).__name__}: {reason(exc)}", fix)]
    from app.core.api.collisions import Collision, route_collisions
    from app.core.api.route_checks import MisplacedLimit, misplaced_limits

    faults: list[Collision | MisplacedLimit] = [*route_collisions(app.routes), *misplaced_limits(app.routes)]
    found = [warning("application", str(one).removesuffix(f"; {one.fix}"), one.fix) for one in faults]
    return [
        *or_ok("application", [*_dead_token_urls(app), *found], "every route can be reached"),
        ok("server", "kit run limits header sections and stops in order; another server does not: docs/deployment.md"),
    ]


def _dead_token_urls(app: "FastAPI") -> Iterator[Finding]:
    from starlette.routing import Match

    schemes: dict[str, Any] = app.openapi().get("components", {}).get("securitySchemes", {})
    for name, scheme in schemes.items():
        for flow in scheme.get("flows", {}).values():
            url = urlsplit(urljoin("/openapi.json", flow.get("tokenUrl", "")))
            if url.netloc or "tokenUrl" not in flow:
                continue  # somebody else's
            scope = {"type": "http", "method": "POST", "path": url.path, "headers": []}
            if not any(route.matches(dict(scope))[0] == Match.FULL for route in app.routes):
                what = f"the token URL of {name} is {url.path}, where no route answers POST"
                yield fault(
                    "application", what, "correct tokenUrl of that scheme: Swagger's Authorize and clients use it"
                )
