"""A package that cannot join stops every start with one line."""

import json
import sys
from pathlib import Path

import pytest

from tests.processes import environment, kit, run

pytestmark = pytest.mark.once


@pytest.mark.parametrize("command", [("run",), ("openapi", "--check"), ("routes",)], ids=" ".join)
def test_one_line_names_file_key_and_fault(command: tuple[str, ...], tmp_path: Path) -> None:
    folder = tmp_path / "guest"
    folder.mkdir()
    (folder / "module.toml").write_text('entrypoint = "guest:register"')
    (folder / "__init__.py").write_text("def register(app): raise OSError('no such luck')")
    done = kit(*command, PYTHONPATH=str(tmp_path), MODULES="app.*,guest", PORT="0", VAR_DIR=str(tmp_path / "var"))
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last == f"{folder}/module.toml: entrypoint: guest:register raised OSError: no such luck"
    assert "Traceback" not in done.stderr


def test_validate_reads_installed_packages(tmp_path: Path) -> None:
    folder = tmp_path / "guest"
    folder.mkdir()
    (folder / "module.toml").write_text('entrypoint = "guest:register"')
    (folder / "__init__.py").write_text("def register(app):\n    from app.core.deps import DBSession\n")
    done = kit("module", "validate", "--json", PYTHONPATH=str(tmp_path), MODULES="app.*,guest", VAR_DIR=str(tmp_path))
    assert done.returncode == 1
    (found,) = json.loads(done.stdout)["violations"]
    assert (found["file"], found["line"], found["rule"]) == (f"{folder}/__init__.py", 2, "E1")


def test_models_that_cannot_be_imported_stop_a_migration(tmp_path: Path) -> None:
    folder = tmp_path / "guest"
    folder.mkdir()
    (folder / "module.toml").write_text('entrypoint = "guest:register"')
    (folder / "__init__.py").touch()
    (folder / "models.py").write_text("raise SystemExit(2)")
    done = kit("migrate", "status", PYTHONPATH=str(tmp_path), MODULES="app.*,guest", VAR_DIR=str(tmp_path / "var"))
    assert (done.returncode, done.stdout) == (1, "")
    fault = f"{folder}/module.toml: models_module: guest.models cannot be imported: SystemExit: 2\n"
    assert done.stderr.endswith(fault)


ANSWER = """
class Guests:
    def export(self, user_id, *, db):
        return self

    async def erase(self, user_id, *, db):
        pass

personal_data = Guests()
"""
SHOW = """
import asyncio
from app.core.configs import get_settings
from app.core.runtime import open_runtime

async def show():
    async with open_runtime(get_settings(), run_jobs=False) as opened:
        print(*opened.personal_data)

asyncio.run(show())
"""


@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        (ANSWER, "guest auth"),
        ("", "ConfigError: guest.personal_data defines no personal_data: personal_data = MyPersonalData()"),
    ],
)
def test_a_package_answers_for_personal_data_without_an_import(answer: str, shown: str, tmp_path: Path) -> None:
    folder = tmp_path / "guest"
    folder.mkdir()
    (folder / "module.toml").write_text('entrypoint = "guest:register"')
    (folder / "__init__.py").write_text("def register(app): ...")
    (folder / "personal_data.py").write_text(answer)
    env = environment(tmp_path, MODULES="app.auth,guest", PYTHONPATH=str(tmp_path))
    done = run(sys.executable, "-c", SHOW, env=env)
    assert (done.stdout + done.stderr).splitlines()[-1].endswith(shown)
