"""`kit openapi`."""

import json
import os
from typing import Annotated

import typer

from app.cli.console import load_settings, settings_errors, write_or_compare


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

    document = json.dumps(create_app(run_jobs=False).openapi(), indent=2, ensure_ascii=False) + "\n"
    write_or_compare(PROJECT_ROOT / "docs" / "openapi.json", document, "kit openapi", check=check)
