"""The part of generating that needs the application as it is after the change; runs in a process of its own."""

import os
import sys
from contextlib import redirect_stdout
from pathlib import Path

from tools.generators.changes import GeneratorError
from tools.generators.project import DOCUMENTS


def write_revision(message: str, timeline: str, table: str) -> list[Path]:
    """Write a revision that makes `table`; GeneratorError where it would hold more."""
    from app.cli.migrate import quiet_alembic
    from tools.migrations.developer import scratch_database
    from tools.migrations.reader import read

    quiet_alembic()
    with redirect_stdout(sys.stderr), scratch_database() as migrations:  # Alembic announces its hooks
        migrations.upgrade()
        written = migrations.revision(message, timeline)
        scripts = migrations.scripts(migrations.timelines.one(timeline))
        heads = [script for script in scripts.get_revisions("heads") if script and Path(script.path) in written]
        touched = {name for script in heads for operation in read(script).operations for name in operation.tables}
    if touched != {table}:
        raise GeneratorError(
            "models and migrations must agree before another model is added: see kit migrate check --scratch"
        )
    return written


def main(*revision: str) -> None:
    """Write the revision that is asked for, print its path, and write the documents."""
    # With the settings of the test suite: a developer's .env must not end up in a document.
    os.environ["ENVIRONMENT"] = "testing"
    try:
        for path in write_revision(*revision) if revision else ():
            print(path)
    except GeneratorError as exc:
        sys.exit(str(exc))
    with redirect_stdout(sys.stderr):
        from tools.api import openapi_document
        from tools.module_map import module_map

        for path, text in zip(DOCUMENTS, (openapi_document, module_map), strict=True):
            if path.is_file():
                path.write_text(text(), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
