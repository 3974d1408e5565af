"""What is logged as an error with an exception reaches the reporter: of requests, jobs, schedules and all else."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import orjson
import pytest
from fastapi import APIRouter
from pydantic import SecretStr, ValidationError
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth import CurrentUser, UserCreated
from app.core.configs import AppConfig, get_settings
from app.core.deps import logger
from app.core.exceptions import ConfigError
from app.core.runtime import Runtime, open_runtime
from app.core.services.log import ErrorReporterInterface
from app.core.services.providers import check_providers
from app.core.services.queue.registry import RegisteredTask
from app.core.services.queue.schedule import Clock
from tests.core.api.conftest import Serve, serve  # noqa: F401  a fixture
from tests.core.log.capture import captured_log
from tests.core.services.conftest import until
from tests.core.services.stage import Play, Stage
from tests.factories.user import UserFactory
from tests.utils import login_user

Drain = Callable[[], Awaitable[int]]
SECRET = "s3cr3t-of-a-partner"


class Reports(ErrorReporterInterface):
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.all: list[tuple[BaseException, Mapping[str, Any]]] = []

    def report(self, error: BaseException, line: Mapping[str, Any]) -> None:
        self.all.append((error, line))


class NeedsDatabase(Reports):
    """Asks for what is not open yet."""

    def __init__(self, database: object) -> None:
        super().__init__()


@pytest.fixture
def reports(kit: Runtime) -> Iterator[Reports]:
    """The reports of this test."""
    before, kit.reporter = kit.reporter, (found := Reports())
    yield found
    kit.reporter = before


router = APIRouter()


@router.get("/broken")
async def broken(user: CurrentUser) -> None:
    raise RuntimeError(f"password={SECRET}")


class TestRequest:
    async def test_is_reported_once_with_its_ids_and_its_user(
        self,
        db: AsyncSession,
        serve: Serve,  # noqa: F811
        reports: Reports,
    ) -> None:
        client = await serve(router)
        await login_user(client, user := await UserFactory.create())
        headers = {"X-Request-ID": "r1", "X-Conversation-ID": "c1"}
        assert (await client.get("/broken", headers=headers)).status_code == 500
        [(error, line)] = reports.all
        assert isinstance(error, RuntimeError)
        wanted = {"event": "request", "route": "/broken", "request_id": "r1", "conversation_id": "c1"}
        assert {name: line[name] for name in wanted} == wanted
        assert line["user"] == f"user:{user.id}"
        assert SECRET not in str(line)

    async def test_a_refusal_is_not_reported(self, db: AsyncSession, serve: Serve, reports: Reports) -> None:  # noqa: F811
        assert (await (await serve(router)).get("/broken")).status_code == 401
        assert reports.all == []


class TestJob:
    async def test_is_reported_when_it_is_dead(
        self,
        db: AsyncSession,
        kit: Runtime,
        scene: Stage,
        reports: Reports,
        drain: Drain,
        due: Callable[[], Awaitable[None]],
    ) -> None:
        scene.fails("play", ValueError("no stage"))
        job_id = await kit.queue.push(Play, {"number": 1})
        for _ in range(2):
            await drain()
            await due()
        assert reports.all == []  # it is tried again
        await drain()
        [(error, line)] = reports.all
        assert isinstance(error, ValueError)
        assert (line["job_id"], line["task"], line["event"]) == (job_id, "test.play", "job is dead")

    async def test_the_owner_of_its_data_is_its_user(
        self, db: AsyncSession, kit: Runtime, reports: Reports, drain: Drain
    ) -> None:
        with captured_log() as lines:
            kit.events.dispatch(UserCreated(id=7, email="ann@example.com", username="ann"))
            await drain()
        assert {line.get("user") for line in lines.all("job completed")} == {"user:7"}


class TestSchedule:
    async def test_is_reported(self, kit: Runtime, committed: object, reports: Reports) -> None:
        class Broken:
            def next_after(self, moment: object) -> None:
                raise ZeroDivisionError

        task = cast(RegisteredTask, SimpleNamespace(name="test.broken", schedule=Broken()))
        clock = asyncio.create_task(Clock()._keep(task))
        await until(lambda: bool(reports.all))
        clock.cancel()
        [(error, line)] = reports.all
        assert isinstance(error, ZeroDivisionError)
        assert line["task"] == "test.broken"


class TestReporter:
    def test_one_that_fails_loses_no_line(self, kit: Runtime, reports: Reports) -> None:
        class Failing(Reports):
            def report(self, error: BaseException, line: Mapping[str, Any]) -> None:
                raise OSError

        kit.reporter = Failing()
        with captured_log() as lines:
            logger.error("lost?", exc_info=ValueError())
        assert lines.one("lost?")["report_failed"] == "OSError"

    def test_what_it_logs_itself_is_not_reported(self, kit: Runtime, reports: Reports) -> None:
        class Talking(Reports):
            def report(self, error: BaseException, line: Mapping[str, Any]) -> None:
                super().report(error, line)
                logger.error("cannot send", exc_info=error)

        kit.reporter = talking = Talking()
        logger.error("once", exc_info=ValueError())
        assert len(talking.all) == 1

    def test_a_warning_or_an_error_without_exception_is_not_reported(self, reports: Reports) -> None:
        logger.warning("hm", exc_info=ValueError())
        logger.error("hm")
        assert reports.all == []

    @pytest.mark.parametrize("dsn", ["sentry", "https://host/1", "https://key@host", "ftp://key@host/1"])
    def test_a_dsn_that_is_none_stops_the_start_without_its_value(self, dsn: str) -> None:
        with pytest.raises(ValidationError, match="SENTRY_DSN is not a DSN of Sentry") as caught:
            AppConfig(SENTRY_DSN=SecretStr(f"{dsn}?{SECRET}"))
        assert SECRET not in str(caught.value)

    def test_one_that_cannot_be_made_stops_the_start(self) -> None:
        with pytest.raises(ConfigError, match="asks for database: its __init__ may take settings"):
            check_providers(AppConfig(ERROR_REPORTER=f"{__name__}.NeedsDatabase"))


@asynccontextmanager
async def envelopes() -> AsyncIterator[tuple[str, list[bytes]]]:
    """An HTTP server that takes Sentry's envelopes: its DSN, and the bodies it was sent."""
    bodies: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            fields = dict(row.split(": ", 1) for row in head.decode().lower().split("\r\n")[1:] if row)
            body = await reader.readexactly(int(fields["content-length"]))
            bodies.append(gzip.decompress(body) if fields.get("content-encoding") == "gzip" else body)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
            await writer.drain()
            break
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://key@127.0.0.1:{server.sockets[0].getsockname()[1]}/1", bodies


class TestSentry:
    async def test_an_envelope_arrives_without_secrets(self, committed: object, kit: Runtime) -> None:
        pytest.importorskip("sentry_sdk", reason="the extra `sentry` is not installed")
        password = SECRET  # a local variable
        async with envelopes() as (dsn, bodies):
            settings = AppConfig(SENTRY_DSN=SecretStr(dsn), DATABASE_URL=get_settings().DATABASE_URL)
            check_providers(settings)
            async with open_runtime(settings, run_jobs=False):
                try:
                    raise RuntimeError(f"password={password}")
                except RuntimeError:
                    logger.exception("import failed", user="user:7", job_id=3, api_key=SECRET, rows=2)
            await until(lambda: bool(bodies))
        [envelope] = bodies
        event = next(found for row in envelope.splitlines() if "exception" in (found := orjson.loads(row)))
        assert event["message"] == "import failed"
        assert event["user"] == {"id": "user:7"}
        assert event["tags"] == {"job_id": "3"}
        assert event["environment"] == "testing"
        assert event["exception"]["values"][-1]["value"] == "password=[redacted]"
        assert event["extra"]["rows"] == 2
        assert SECRET.encode() not in envelope
