"""`kit openapi`."""

import json
import os
from typing import Annotated

import typer

from app.cli.console import fail, load_settings, settings_errors


def openapi(
    check: Annotated[bool, typer.Option("--check", help="Compare instead of writing.")] = False,
) -> None:
    """Write the OpenAPI document to docs/openapi.json."""
    # With the settings of the test suite: a developer's .env must not end up in the committed document.
    os.environ["ENVIRONMENT"] = "testing"
    load_settings()
    from app.core.configs import PROJECT_ROOT

    with settings_errors():
        from app.main import create_app

    path = PROJECT_ROOT / "docs" / "openapi.json"
    document = json.dumps(create_app(run_jobs=False).openapi(), indent=2, ensure_ascii=False) + "\n"
    if not check:
        path.write_text(document)
        typer.echo(f"{path} is written.")
    elif not path.exists() or path.read_text() != document:
        fail("docs/openapi.json is not what the code says. If the change is meant: .venv/bin/kit openapi")
    else:
        typer.echo("docs/openapi.json is what the code says.")
