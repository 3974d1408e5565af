"""docs/security.md judges every item, and what it says of the code as a whole is true."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from jose import jwk
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.configs import PROJECT_ROOT, BaseConfig
from tests.auth.fixtures import AsUser
from tests.clients import Client
from tests.utils import PASSWORD

PAGE = (PROJECT_ROOT / "docs" / "security.md").read_text(encoding="utf-8")
ITEMS = """
    1.1:2 1.2:9 1.3:11 1.4:3 1.5:2 2.1:3 2.2:3 2.3:4 2.4:1
    6.1:3 6.2:12 6.3:4 6.4:4 6.5:5 6.6:3 6.8:4 7.1:3 7.2:4 7.3:2 7.4:5 7.5:2 7.6:2 8.1:2 8.2:3 8.3:1 8.4:1
    9.1:3 9.2:4 10.1:2 10.2:2 10.3:4 10.4:11 10.5:5 10.6:2 10.7:3
    13.1:1 13.2:5 13.3:2 13.4:5 16.1:1 16.2:5 16.3:4 16.4:3 16.5:3
"""
"""Sections of ASVS 5.0 and how many of their items are of level 1 or 2: these come first in each."""
RUNS_TEXT = {"eval", "exec", "compile", "__import__"}
UNSAFE = {"pickle", "marshal", "shelve", "dill", "yaml", "xml", "lxml", "defusedxml", "ldap", "ldap3"}
TALKS = dict.fromkeys(("aiohttp", "asyncpg", "ftplib", "httpx", "requests", "smtplib", "urllib3", "websockets"), "")
TALKS |= {"redis": "app/core app/cli", "taskiq_redis": "app/core", "psycopg": "app/core/db app/core/migrations"}
TALKS |= {"httpx2": "app/core/services/http", "aiosmtplib": "app/core/services/mail app/cli/doctor"}
TALKS |= {"sentry_sdk": "app/core/services/sentry.py"}
"""Libraries that open connections, and where they may be imported."""

pytestmark = pytest.mark.once


def rows() -> list[tuple[str, str, str]]:
    """Item, state and text of each row of the table."""
    return [(found[1], found[2], found[3]) for found in re.finditer(r"(?m)^\| ([\d.]+) \| (.+?) \| (.+) \|$", PAGE)]


def sources() -> Iterator[tuple[str, ast.Module]]:
    """Path and syntax tree of each file of the application."""
    for path in sorted((PROJECT_ROOT / "app").rglob("*.py")):
        yield path.relative_to(PROJECT_ROOT).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def imported(tree: ast.Module) -> set[str]:
    """Packages that a file imports, within functions too."""
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return {name.partition(".")[0] for name in names}


class TestPage:
    def test_every_item_is_judged_once(self) -> None:
        sections = [section.partition(":") for section in ITEMS.split()]
        expected = [f"{name}.{number + 1}" for name, _, count in sections for number in range(int(count))]
        assert [item for item, *_ in rows()] == expected
        assert len(expected) == 163

    def test_what_is_met_names_its_test_and_the_rest_a_reason(self) -> None:
        for item, state, text in rows():
            assert state in ("met", "open", "n.a."), item
            assert state != "met" or "`tests/" in text, item
            assert len(text) > 5, item

    def test_every_time_that_something_is_kept_is_in_the_inventory(self) -> None:
        kept = {
            name
            for config in BaseConfig.known
            for name in config.model_fields
            if name.endswith(("_KEEP_DAYS", "_ERASURE_DAYS"))
        }
        assert [name for name in sorted(kept) if f"`{name}`" not in PAGE] == []


class TestCode:
    def test_no_text_is_run(self) -> None:
        for path, tree in sources():
            calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
            names = {call.func.id for call in calls if isinstance(call.func, ast.Name)}
            attributes = {ast.unparse(call.func) for call in calls if isinstance(call.func, ast.Attribute)}
            assert not names & RUNS_TEXT, path
            assert not attributes & {"os.system", "os.popen", "subprocess.getoutput", "asyncio.create_subprocess_shell"}
            assert not any(word.arg == "shell" for call in calls for word in call.keywords), path

    def test_nothing_unsafe_is_read(self) -> None:
        assert {path: found for path, tree in sources() if (found := imported(tree) & UNSAFE)} == {}

    def test_connections_are_opened_where_the_page_says(self) -> None:
        for path, tree in sources():
            for name in imported(tree) & TALKS.keys():
                assert path.startswith(tuple(TALKS[name].split()) or "nowhere"), f"{path} imports {name}"

    @pytest.mark.parametrize("algorithm", ["HS256", "RS256", "ES256"])
    def test_keys_are_those_of_cryptography(self, algorithm: str) -> None:
        """python-jose also installs `ecdsa`, whose signatures can be timed."""
        assert jwk.get_key(algorithm).__module__ == "jose.backends.cryptography_backend"


class TestService:
    @pytest.mark.parametrize("method", ["TRACE", "CONNECT", "DEBUG"])
    async def test_no_method_repeats_a_request(self, db: AsyncSession, client: Client, method: str) -> None:
        answer = await client.request(method, "/api/v1/profile", headers={"Authorization": "Bearer hunter2"})
        assert answer.status_code == 405
        assert "hunter2" not in answer.text

    async def test_a_login_takes_over_no_session_that_the_client_brings(
        self, db: AsyncSession, as_user: AsUser
    ) -> None:
        ann = await as_user()
        data = {"username": ann.user.email, "password": PASSWORD}
        tokens = (await ann.post("/api/v1/auth/login", data=data)).json()
        sessions: list[dict[str, bool]] = (await ann.get("/api/v1/auth/sessions")).json()["data"]
        assert len(sessions) == 2
        assert f"Bearer {tokens['access_token']}" != ann.headers["Authorization"]

    @pytest.mark.parametrize(
        "path", ["/app/", "/docs/", "/static/", "/.git/config", "/.env", "/var/app.db", "/docs/%2e%2e/app"]
    )
    async def test_no_folder_and_no_file_is_served(self, db: AsyncSession, client: Client, path: str) -> None:
        answer: httpx.Response = await client.get(path)
        assert answer.status_code in (404, 405)


def test_the_image_has_neither_history_nor_settings() -> None:
    lines = Path(PROJECT_ROOT, ".dockerignore").read_text().splitlines()
    allowed = {line[1:].rstrip("/") for line in lines if line.startswith("!")}
    assert lines[0] == "*"
    assert not {".git", ".env", "var", "."} & allowed
