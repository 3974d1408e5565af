"""The attacks find what they look for: each reports the weaknesses that are planted for it."""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from fastapi import FastAPI

from app.core.configs import PROJECT_ROOT
from tests.attacks.conftest import transport_of
from tests.attacks.document import Document
from tests.attacks.report import table
from tests.attacks.suite import run
from tests.attacks.target import Target
from tests.attacks.weak import PREFIX, WeakService, weak_document

WORDS = {
    "tokens": ("open", "redeem"),
    "assignment": ("settings",),
    "objects": ("notes", "reports"),
    "roles": ("/roles", "/users"),
    "keys": ("/api-keys", "/api-keys/{api_key_id}", "/roles", "/users"),
    "headers": ("download",),
    "canaries": ("unlock",),
    "bombs": ("parse",),
}
"""Words in the paths that an attack is given here."""
PLANTED: dict[str, Sequence[str]] = {
    "tokens": (
        rf"GET {PREFIX}/open with no credential as bearer: 200",
        rf"GET {PREFIX}/open with refresh as bearer: 200",
        rf"POST {PREFIX}/redeem with access as token: 204",
        "the reset token works once: 204",
    ),
    "races": ("a reset link used 20 times at once: 20 accepted", "access token after a logout, .*: 200"),
    "enumeration": ("login by address as data: differs in .*x-account",),
    "proxies": (
        "limit with X-Forwarded-For: 198.51.100.7: answered 401|claims to be many: no limit within",
        "session with X-Forwarded-For: has",
    ),
    "guessing": ("40 guesses at one account: 40 were checked",),
    "assignment": (rf"PATCH {PREFIX}/settings with is_superuser=True: accepted \(200\), and the answer has it",),
    "objects": (
        rf"GET {PREFIX}/notes/{{note_id}} with .* of another user: answered 200",
        rf"GET {PREFIX}/reports without reports:read: answered 200",
    ),
    "roles": ("admin for oneself with users:read: answered 204",),
    "keys": ("a key whose owner was deleted: 200",),
    "headers": (
        rf"GET {PREFIX}/download at \?name= with %0d%0a: content-disposition has a line break",
        "the answer has the host",
    ),
    "canaries": (
        rf"answer to POST {PREFIX}/unlock, field password: status 400 repeats",
        rf"log: has the secret of POST {PREFIX}/unlock, field password",
    ),
    "twins": (r"name U\+200B within: a second account: 201",),
    "bombs": (rf"POST {PREFIX}/parse.* answered 500",),
}


@pytest.mark.once
@pytest.mark.parametrize("name", PLANTED)
async def test_what_is_planted_is_reported(app: FastAPI, target: Target, name: str) -> None:
    service = WeakService(app)
    target.transport = transport_of(service)
    target.document = Document(weak_document(app, service.weak, WORDS.get(name, ())))
    if name == "keys" and target.document.find("POST", "/api-keys") is None:
        pytest.skip("there are no API keys")

    (report,) = await run(target, [name])

    for expected in PLANTED[name]:
        assert any(re.search(expected, one) for one in report.failed), f"{expected}\n{table([report])}"


@asynccontextmanager
async def naive_server() -> AsyncIterator[str]:
    """A server that takes every line that looks like a request for one: its URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            if line.rstrip().endswith(b"HTTP/1.1"):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            if line.lower().startswith(b"connection: close"):
                break
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=2**20)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.once
class TestCommand:
    async def test_it_fails_and_names_what_a_server_accepts_that_reads_one_request_as_two(self, tmp_path: Path) -> None:
        code, out, err = await self._run(tmp_path)

        assert code == 1
        assert "smuggling: Content-Length and Transfer-Encoding: [200, 200]" in out
        assert re.search(r"^attack +tried +held +failed +not judged +seconds$", out, re.MULTILINE)
        assert "\033" not in err
        assert len(err.splitlines()) == 1, "in a pipe one line for each attack"

    async def test_json_is_all_it_prints(self, tmp_path: Path) -> None:
        code, out, err = await self._run(tmp_path, "--json")

        ((_, (found,)),) = json.loads(out).items()
        assert (code, err) == (1, "")
        assert found["attack"] == "smuggling"
        assert found["failed"]
        assert found["tried"] == found["held"] + len(found["failed"]) + len(found["not_judged"])

    async def _run(self, folder: Path, *options: str) -> tuple[int, str, str]:
        document = folder / "openapi.json"
        document.write_text(json.dumps({"paths": {"/auth/login": {"post": {}}}}))
        async with naive_server() as url:
            command = (sys.executable, "-m", "tests.attacks", url, "--document", str(document), "--only", "smuggling")
            ended = await asyncio.to_thread(
                subprocess.run, [*command, *options], cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=300
            )
        return ended.returncode, ended.stdout, ended.stderr
