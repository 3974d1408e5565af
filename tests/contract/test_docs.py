"""Every Python snippet of the docs runs as it is written, and they name what there is to use."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy.engine import URL

from app.core.configs import PROJECT_ROOT
from tests.conftest import backend
from tests.contract.docs_page import snippets

PAGES = [page for page in sorted(PROJECT_ROOT.glob("docs/*.md")) if any(wanted for *_, wanted in snippets(page))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_snippets_run(page: Path, template: URL, tmp_path: Path) -> None:
    url = backend.copy()
    try:
        settings = {"DATABASE_URL": url.render_as_string(hide_password=False), "VAR_DIR": str(tmp_path)}
        done = subprocess.run(
            [sys.executable, "-W", "error", "-m", "tests.contract.docs_page", str(page)],
            cwd=PROJECT_ROOT,
            env={**os.environ, **settings},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
    finally:
        backend.drop(url)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.split()[-1]) > 0


SERVICES = ("cache", "events", "log", "mail", "queue")
PACKAGES = ("api", "boundaries", "configs", "db", "deps", "modules", *(f"services.{name}" for name in SERVICES))


@pytest.mark.parametrize("name", PACKAGES)
def test_every_public_name_is_in_the_docs(name: str) -> None:
    text = "\n".join(page.read_text() for page in PROJECT_ROOT.glob("docs/*.md"))
    public = importlib.import_module(f"app.core.{name}").__all__
    assert [word for word in public if not re.search(rf"\b{word}\b", text)] == []
