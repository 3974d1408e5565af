"""The part of generating that needs the application as it is after the change; runs in a process of its own."""

import sys
from contextlib import redirect_stdout
from pathlib import Path

from app.cli.migrate import quiet_alembic
from tools.api import openapi_document
from tools.generators.changes import GeneratorError
from tools.generators.project import DOCUMENTS
from tools.migrations.developer import scratch_database
from tools.migrations.reader import read
from tools.module_map import module_map


def write_revision(message: str, timeline: str, table: str) -> list[Path]:
    """Write a revision that makes `table`; GeneratorError where it would hold more."""
    quiet_alembic()
    with scratch_database() as migrations:
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
    with redirect_stdout(sys.stderr):  # Alembic announces its hooks
        try:
            written = write_revision(*revision) if revision else []
        except GeneratorError as exc:
            sys.exit(str(exc))
        for path, text in zip(DOCUMENTS, (openapi_document, module_map), strict=True):
            if path.is_file():
                path.write_text(text(), encoding="utf-8")
    print(*written, sep="\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
