"""`kit run`: one line where it cannot start, and everything one needs to know where it can."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
from pydantic import SecretStr

from app.cli.run import answers, listen
from app.cli.starting import _stores
from app.core.configs import AppConfig
from tests.processes import Process, environment, free_port, kit, started, wait_for

KIT = (sys.executable, "-m", "app.cli")


@contextmanager
def service(folder: Path, *arguments: str, **settings: str) -> Iterator[tuple[Process, int, Path]]:
    """A service that answers: its process, its port and the file of its output."""
    port, log = free_port(), folder / "out.log"
    env = environment(folder, PORT=str(port), **settings)
    with started(*KIT, "run", *arguments, env=env, log=log) as process:
        wait_for(lambda: answers("127.0.0.1", port) or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        wait_for(lambda: "Stop with Ctrl-C" in log.read_text())
        yield process, port, log


def refused(done: "subprocess.CompletedProcess[str]") -> str:
    """The one line a refused start says, to people alone."""
    assert (done.returncode, done.stdout) == (1, "")
    assert "Traceback" not in done.stderr
    (line,) = done.stderr.splitlines()
    assert "\x1b" not in line
    return line


@pytest.mark.once
class TestRefusal:
    def test_a_port_in_use(self, tmp_path: Path) -> None:
        with listen("127.0.0.1", 0) as taken:
            port = taken.getsockname()[1]
            line = refused(kit("run", PORT=str(port), VAR_DIR=str(tmp_path / "var")))
        assert line.startswith(f"Port {port} on 127.0.0.1 is in use.")
        assert f"PORT={port + 1} make run" in line
        assert not (tmp_path / "var" / "app.db").exists()

    def test_an_address_that_is_not_ours(self, tmp_path: Path) -> None:
        line = refused(kit("run", HOST="192.0.2.1", PORT=str(free_port()), VAR_DIR=str(tmp_path)))
        assert line.startswith("Cannot listen on 192.0.2.1 port ")

    def test_a_database_that_does_not_answer(self, tmp_path: Path) -> None:
        url = "postgresql://ann:hidden@127.0.0.1:1/kit"
        line = refused(kit("migrate", PORT=str(free_port()), DATABASE_URL=url, VAR_DIR=str(tmp_path)))
        assert line.startswith("The database postgresql+psycopg://ann:***@127.0.0.1:1/kit cannot be used: ")
        assert "refused" in line
        assert "hidden" not in line

    def test_a_folder_for_data_that_cannot_be(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        folder = tmp_path / "file" / "var"
        line = refused(kit("migrate", PORT=str(free_port()), VAR_DIR=str(folder)))
        assert line == f"The folder for data {folder} cannot be used: Not a directory. Check VAR_DIR."
        line = refused(kit("run", PORT=str(free_port()), VAR_DIR=str(folder)))
        assert line == f"SECRET_KEY is not set and cannot be kept in VAR_DIR={folder}: Not a directory"

    def test_a_setting_that_is_no_number(self, tmp_path: Path) -> None:
        line = refused(kit("run", PORT="eighty", VAR_DIR=str(tmp_path)))
        assert line.startswith("The settings cannot be used: PORT: Input should be a valid integer")
        assert "eighty" not in line

    def test_a_module_s_setting(self, tmp_path: Path) -> None:
        line = refused(kit("migrate", JWT_SECRET_KEY="short", VAR_DIR=str(tmp_path)))
        assert line.startswith("The settings cannot be used: JWT_SECRET_KEY is shorter than 32 bytes")

    def test_settings_unfit_for_production_are_all_named(self, tmp_path: Path) -> None:
        done = kit("run", ENVIRONMENT="production", SECRET_KEY="changeme", WEB_CONCURRENCY="2", VAR_DIR=str(tmp_path))
        assert (done.returncode, done.stdout) == (1, "")
        first, *faults = done.stderr.splitlines()
        assert first == "The settings are not fit for production:"
        named = {fault.removeprefix("  - ").split()[0] for fault in faults}
        assert {"SECRET_KEY", "JWT_SECRET_KEY", "REDIS_URL", "DATABASE_URL"} <= named
        assert "changeme" not in done.stderr

    def test_a_module_that_is_not_there(self, tmp_path: Path) -> None:
        assert "app.nowhere" in refused(kit("run", MODULES="app.nowhere", VAR_DIR=str(tmp_path)))


def test_the_banner_names_the_stores_without_a_password() -> None:
    stores = _stores(
        AppConfig(
            DATABASE_URL=SecretStr("postgresql://ann:hidden@db.example/shop"),
            REDIS_URL=SecretStr("rediss://:hidden@cache.example:6380/2"),
            WORKER_IN_APP=False,
        )
    )
    assert stores == {
        "Data": "PostgreSQL shop on db.example:5432",
        "Redis": "cache.example:6380/2",
        "Jobs": "run by kit worker and kit scheduler",
    }


class TestStart:
    def test_it_says_where_everything_is_and_the_password_once(self, tmp_path: Path) -> None:
        with service(tmp_path) as (process, port, log):
            text = log.read_text()
            assert f"http://127.0.0.1:{port}/api/v1\n" in text
            assert f"http://127.0.0.1:{port}/docs\n" in text
            assert str(tmp_path / "var" / "mail") in text
            assert text.count("Password:") == 1
            assert f"Data   SQLite {tmp_path}/var/app.db\n" in text
            assert "Redis  none: cache and limits are in this process\n" in text
            assert "Jobs   run here\n" in text
            assert "GET /health/live" not in text
            assert "waiting for the database" not in text
            assert "\x1b" not in text
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready") as answer:
                assert json.load(answer)["data"]["checks"] == {"database": "ok", "migrations": "ok"}
                assert "server" not in answer.headers
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=120) == 0

        with service(tmp_path) as (_, _, log):
            assert "Password:" not in log.read_text()

    def test_what_it_keeps_is_its_owner_s_alone(self, tmp_path: Path) -> None:
        with service(tmp_path) as (_, port, _):
            form = b"username=nobody&password=nothing"
            request = urllib.request.Request(f"http://127.0.0.1:{port}/api/v1/auth/login", data=form)
            with pytest.raises(urllib.error.HTTPError):
                urllib.request.urlopen(request)
        made = list((tmp_path / "var").rglob("*"))
        assert {"SECRET_KEY", "app.db"} <= {path.name for path in made}
        assert {stat.S_IMODE(path.stat().st_mode) for path in made if path.is_file()} == {0o600}
        assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "var", *made) if path.is_dir()} == {0o700}

    def test_several_server_processes_share_the_port(self, tmp_path: Path) -> None:
        with service(tmp_path, WEB_CONCURRENCY="2") as (process, port, _):
            assert all(answers("127.0.0.1", port) for _ in range(10))
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=120)
        assert not answers("127.0.0.1", port)

    def test_it_can_watch_the_code(self, tmp_path: Path) -> None:
        with service(tmp_path, "--reload") as (process, port, _):
            assert answers("127.0.0.1", port)
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=120)
        assert not answers("127.0.0.1", port)

    @pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
    def test_it_listens_where_it_is_told(self, tmp_path: Path) -> None:
        port, log = free_port(), tmp_path / "out.log"
        env = environment(tmp_path, HOST="::", PORT=str(port))
        with started(*KIT, "run", env=env, log=log):
            wait_for(lambda: f"http://[::1]:{port}/docs" in log.read_text())


@pytest.mark.parametrize("options", [(), ("--verbose",)])
def test_production_keeps_the_standard_output_for_the_log(tmp_path: Path, options: tuple[str, ...]) -> None:
    secrets = {"SECRET_KEY": os.urandom(24).hex(), "JWT_SECRET_KEY": os.urandom(24).hex()}
    secrets["FRONTEND_URL"] = "https://shop.example"
    env = environment(tmp_path, ENVIRONMENT="production", PORT=str(free_port()), **secrets)
    output, errors = tmp_path / "out", tmp_path / "err"
    with output.open("wb") as out, errors.open("wb") as err:
        process = subprocess.Popen([*KIT, *options, "run"], env=env, stdout=out, stderr=err)
        try:
            wait_for(lambda: "Stop with Ctrl-C" in errors.read_text())
        finally:
            process.terminate()
            process.wait(timeout=120)
    events = [json.loads(line)["event"] for line in output.read_text().splitlines()]
    assert any(event.startswith("Running upgrade") for event in events)
    assert not any("not served by `kit run`" in event for event in events)
    said = errors.read_text()
    assert "There is no administrator yet: set FIRST_USER_EMAIL and FIRST_USER_PASSWORD." in said
    assert "/docs" not in said


@pytest.mark.once
class TestSlowClients:
    """Against the server itself, with no proxy before it."""

    @staticmethod
    def _trickle(port: int, beginning: bytes, piece: bytes) -> bytes:
        """What a client gets that sends `piece` again and again."""
        with socket.create_connection(("127.0.0.1", port), timeout=0.2) as client:
            client.sendall(beginning)
            give_up = time.monotonic() + 60
            while time.monotonic() < give_up:
                with suppress(TimeoutError):
                    return client.recv(65536)
                with suppress(OSError):
                    client.sendall(piece)
            raise AssertionError("it may send for ever")

    def test_they_are_cut(self, tmp_path: Path) -> None:
        head = b"POST /api/v1/auth/login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        body = head + b"Content-Length: 4000\r\n\r\n"
        with service(tmp_path, CLIENT_TIMEOUT_SECONDS="1") as (_, port, _):
            assert self._trickle(port, b"", b"") == b""
            for beginning, piece in ((head, b"A: b\r\n"), (body, b"x"), (body + b"{", b"")):
                answer = self._trickle(port, beginning, piece)
                assert answer.startswith(b"HTTP/1.1 408 "), answer
                assert b"application/problem+json" in answer
                assert b"connection: close" in answer
            refused = b"POST /health/live HTTP/1.1\r\nHost: a\r\nContent-Length: 4000\r\n\r\n"
            with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
                client.sendall(refused)
                answer = b"".join(iter(partial(client.recv, 65536), b""))
                assert answer.startswith(b"HTTP/1.1 405 ")
                assert answer.count(b"HTTP/1.1 ") == 1  # nothing that could be taken for another answer

    def test_a_body_that_is_only_long_is_read(self, tmp_path: Path) -> None:
        with service(tmp_path, CLIENT_TIMEOUT_SECONDS="1") as (_, port, _):
            size = 3000
            answer = self._trickle(
                port,
                b"POST /api/v1/auth/login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
                + b"Content-Length: %d\r\n\r\n" % size,
                b" " * (size // 15),  # for three seconds
            )
        assert answer.startswith(b"HTTP/1.1 422 "), answer

    def test_others_are_served_when_they_use_up_the_connections(self, tmp_path: Path) -> None:
        port, log = free_port(), tmp_path / "out.log"
        env = environment(tmp_path, PORT=str(port), CLIENT_TIMEOUT_SECONDS="600")
        limited = ("bash", "-c", 'ulimit -n 128 && exec "$@"', "_", *KIT, "run")
        with started(*limited, env=env, log=log), ExitStack() as stack:
            wait_for(lambda: answers("127.0.0.1", port))
            for number in range(300):
                client = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
                with suppress(OSError):  # those who wait for too long make room
                    client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\n" + b"Content-Length: 9\r\n\r\n" * (number % 2))
                if number % 20 == 0:
                    wait_for(lambda: answers("127.0.0.1", port), 30)
            assert answers("127.0.0.1", port)
            assert answers("127.0.0.1", port, "/health/live")
