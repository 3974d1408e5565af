"""Metrics: what is counted, that series do not grow with requests, and who may read them."""

import asyncio
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI
from pydantic import SecretStr, ValidationError
from sqlalchemy import select, text, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncSession

from app.core import metrics
from app.core.api import public
from app.core.api.limiter import ConfigurableRateLimiter
from app.core.api.routes import listed_routes
from app.core.api.throttle import Throttle
from app.core.configs import PROJECT_ROOT, AppConfig
from app.core.db.jobs import Job
from app.core.db.session import Database
from app.core.exceptions import ConfigError
from app.core.metrics import Counter, declared
from app.core.runtime import Runtime, exporting, runtime
from app.core.services.mail import EmailData, Sender
from app.core.services.mail.message import OutgoingMail
from app.core.services.mail.service import MailServiceBase
from app.core.services.queue import QueueServiceInterface
from app.core.services.queue.broker import run_once
from app.core.services.queue.execution import execute_alone
from app.core.services.queue.interface import PermanentFailure
from app.core.services.queue.store import Outcome
from tests.core.api.asgi import Exchange
from tests.core.api.conftest import Serve, make_app, serve  # noqa: F401  a fixture
from tests.core.services.conftest import listening
from tests.core.services.stage import Play, Stage
from tests.core.services.templates import Ticket
from tests.factories.user import UserFactory
from tests.processes import free_port
from tests.utils import PASSWORD, CapturedMail

pytest.importorskip("prometheus_client", reason="the extra `metrics` is not installed")

Drain = Callable[[], Awaitable[int]]
Samples = dict[str, float]
TOKEN = "7b1f0c5e9a2d4836" * 2


def samples(shown: str) -> Samples:
    """The samples of a scrape, by name and labels as they are written."""
    lines = (line for line in shown.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


@pytest.fixture
async def measured(db: AsyncSession) -> AsyncIterator[FastAPI]:
    """An application whose metrics are on."""
    settings: dict[str, Any] = {"METRICS_ENABLED": True, "RATE_LIMITER_ENABLED": True}
    application = make_app(router, **settings)
    async with exporting(AppConfig(**settings)):
        yield application


Scrape = Callable[[], Awaitable[Samples]]


@pytest.fixture
async def http(measured: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client of that application."""
    transport = httpx.ASGITransport(measured, raise_app_exceptions=False, client=("192.0.2.1", 50000))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


@pytest.fixture
def scrape(http: httpx.AsyncClient) -> Scrape:
    """Ask for the metrics as Prometheus does."""

    async def ask() -> Samples:
        answer = await http.get("/metrics")
        assert answer.status_code == 200, answer.text
        return samples(answer.text)

    return ask


router = APIRouter(prefix="/measured", dependencies=[public])


@router.get("/{number}")
async def answer(number: int) -> int:
    return 1 // number


@router.post("", dependencies=[Depends(ConfigurableRateLimiter(1, 60, name="narrow"))])
async def narrow() -> None: ...


class TestRequests:
    @pytest.mark.once
    async def test_series_do_not_grow_with_requests_paths_or_methods(self, measured: FastAPI, scrape: Scrape) -> None:
        async def ask(count: int) -> None:
            for number in range(count):
                path = f"/measured/{number % 250}" if number % 2 else f"/nowhere/{number % 250}"
                method = ("GET", "POST", "BREW", uuid4().hex.upper())[number % 4]
                await Exchange(path, method=method).run(measured)

        await scrape()  # is a route of its own
        await ask(1000)
        after_1000 = await scrape()
        await ask(9000)
        after_10000 = await scrape()
        assert after_10000.keys() == after_1000.keys()
        counted = {name: value for name, value in after_10000.items() if name.startswith("kit_http_requests_total")}
        assert sum(counted.values()) == 10_000 + 2
        assert 'method="BREW"' not in str(counted)

    async def test_they_are_counted_by_route_method_and_class_of_status(
        self, http: httpx.AsyncClient, scrape: Scrape
    ) -> None:
        for path in ("/measured/1", "/measured/2", "/measured/0", "/measured/x", "/measured/1/2"):
            await http.get(path)
        await http.head("/measured/1")
        found = await scrape()

        def of(**labels: str) -> float:
            pairs = ",".join(f'{name}="{value}"' for name, value in labels.items())
            return found[f"kit_http_requests_total{{{pairs}}}"]

        assert of(method="GET", route="/measured/{number}", status="2xx") == 2
        assert of(method="GET", route="/measured/{number}", status="5xx") == 1
        assert of(method="GET", route="/measured/{number}", status="4xx") == 1
        assert of(method="HEAD", route="/measured/{number}", status="2xx") == 1
        assert of(method="GET", route="unmatched", status="4xx") == 1
        assert found['kit_http_request_duration_seconds_count{method="GET",route="/measured/{number}"}'] == 4
        assert found['kit_http_in_flight{type="http"}'] == 1  # the scrape itself

    async def test_refusals_are_counted_by_limit(self, http: httpx.AsyncClient, scrape: Scrape) -> None:
        throttle = Throttle(f"thumbs-{uuid4()}", (1, 60))
        for _ in range(2):
            await http.post("/measured")
            await throttle.count("ann")
        found = await scrape()
        assert found['kit_limit_refusals_total{limit="narrow"}'] == 1
        assert found[f'kit_limit_refusals_total{{limit="{throttle._name}"}}'] == 1

    async def test_logins_are_counted_by_outcome(self, http: httpx.AsyncClient, scrape: Scrape) -> None:
        user = await UserFactory.create()
        for name, password in ((user.email, PASSWORD), (user.email, "wrong"), ("nobody@example.com", PASSWORD)):
            await http.post("/api/v1/auth/login", data={"username": name, "password": password})
        found = await scrape()
        for outcome in ("succeeded", "wrong_password", "unknown_account"):
            assert found[f'auth_logins_total{{outcome="{outcome}"}}'] == 1


class TestDatabase:
    async def test_statements_and_connections(self, db: AsyncSession, scrape: Scrape) -> None:
        before = (await scrape())["kit_db_statement_duration_seconds_count"]
        await db.execute(select(1))
        found = await scrape()
        assert found["kit_db_statement_duration_seconds_count"] > before
        assert 0 < found['kit_db_pool_connections{state="used"}'] <= found['kit_db_pool_connections{state="limit"}']

    async def test_a_statement_that_runs_while_they_are_switched_on_is_unharmed(self, committed: Database) -> None:
        begun = asyncio.Event()

        async def read() -> int | None:
            async with committed.session_scope(read_only=True) as session:
                numbers = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 500000)"
                found: int | None = await session.scalar(text(f"{numbers} SELECT max(x) FROM c"))
                return found

        with listening(committed.engine.sync_engine, "before_cursor_execute", lambda *_: begun.set()):
            reading = asyncio.create_task(read())
            await begun.wait()
            async with exporting(AppConfig(METRICS_ENABLED=True)):
                assert await reading == 500_000

    async def test_a_wait_for_a_connection_is_measured(self, db: AsyncSession, scrape: Scrape) -> None:
        url = runtime().database.engine.url
        narrow = Database.connect(url, pool_size=1, **({"pool_timeout": 0.1} if "postgres" in str(url) else {}))
        async with narrow.engine.connect():
            waiting = asyncio.create_task(narrow.engine.connect().start())
            await asyncio.wait({waiting}, timeout=0.2)
        if "postgres" in str(url):
            assert isinstance(waiting.exception(), PoolTimeout)
        else:
            await (await waiting).close()
        await narrow.close()
        assert (await scrape())["kit_db_pool_wait_seconds_count"] == 1


class TestJobs:
    async def test_runs_are_counted_by_task_and_outcome(
        self, kit: Runtime, scene: Stage, drain: Drain, scrape: Scrape
    ) -> None:
        await kit.queue.push(Play, {"number": 1})
        await drain()
        scene.fails("play", ValueError("no stage"))
        await kit.queue.push(Play, {"number": 2})
        await drain()
        found = await scrape()
        assert found['kit_job_runs_total{outcome="completed",task="test.play"}'] == 1
        assert found['kit_job_runs_total{outcome="failed",task="test.play"}'] == 1
        assert found['kit_job_runs_total{outcome="dead",task="test.play"}'] == 0
        assert found['kit_job_run_duration_seconds_count{task="test.play"}'] == 2

    async def test_a_task_that_nobody_knows_gets_no_series(
        self, db: AsyncSession, kit: Runtime, drain: Drain, scrape: Scrape
    ) -> None:
        for _ in range(2):
            job_id = await kit.queue.push(Play, {"number": 1})
            await db.execute(update(Job).where(Job.id == job_id).values(task=f"gone.{uuid4()}"))
            await db.commit()
        await drain()
        found = [name for name, value in (await scrape()).items() if name.startswith("kit_job_runs_total") and value]
        assert found == ['kit_job_runs_total{outcome="failed",task="other"}']

    @pytest.mark.parametrize(("held", "outcome"), [(False, "isolated"), (True, "failed")])
    async def test_a_run_in_a_process_of_its_own_is_counted_here(
        self, db: AsyncSession, kit: Runtime, scrape: Scrape, held: bool, outcome: str
    ) -> None:
        await kit.queue.push(Play, {"number": 1})
        (job,) = await kit.runner.store.claim(1)

        async def ended() -> str:
            return "exited with 0"

        async def write(_: Outcome) -> bool:
            return held

        await execute_alone(job, write, ended)
        assert (await scrape())[f'kit_job_runs_total{{outcome="{outcome}",task="test.play"}}'] == 1

    async def test_what_is_not_durable_is_counted(self, kit: Runtime, scene: Stage, scrape: Scrape) -> None:
        await run_once("test.play", {"number": 1})
        scene.fails("play", ValueError("no stage"))
        await run_once("test.play", {"number": 1})
        found = await scrape()
        assert found['kit_job_runs_total{outcome="completed",task="test.play"}'] == 1
        assert found['kit_job_runs_total{outcome="lost",task="test.play"}'] == 1

    async def test_depth_and_age_by_queue(self, kit: Runtime, scrape: Scrape) -> None:
        await kit.queue.push(Play, {"number": 1})
        await kit.queue.push(Play, {"number": 2}, delay=600)
        found = await scrape()
        assert found["kit_queues_readable"] == 1
        assert found['kit_queue_jobs{queue="default",state="due"}'] == 1
        assert found['kit_queue_jobs{queue="default",state="later"}'] == 1
        assert found['kit_queue_jobs{queue="mail",state="due"}'] == 0
        assert found['kit_queue_paused{queue="default"}'] == 0
        assert 0 <= found['kit_queue_oldest_seconds{queue="default"}'] < 60

    async def test_a_database_that_is_away_fails_no_scrape(self, kit: Runtime, scrape: Scrape) -> None:
        before = kit.database
        kit.database = Database.connect(make_url("postgresql+psycopg://nobody@127.0.0.1:1/none"))
        try:
            found = await scrape()
        finally:
            await kit.database.close()
            kit.database = before
        assert found["kit_queues_readable"] == 0
        assert not [name for name in found if name.startswith("kit_queue_jobs")]


class Broken(MailServiceBase):
    """Delivers nothing."""

    def __init__(self, sender: Sender, queue: QueueServiceInterface, error: Exception) -> None:
        super().__init__(sender, queue)
        self._error = error

    async def deliver(self, mail: OutgoingMail) -> None:
        raise self._error


class TestServices:
    async def test_reads_of_the_cache(self, kit: Runtime, scrape: Scrape) -> None:
        cache = kit.cache.namespace(f"metrics{uuid4()}")
        await cache.get("seat")
        await cache.set("seat", 7)
        assert await cache.get("seat") == 7
        found = await scrape()
        assert found['kit_cache_reads_total{result="miss"}'] == 1
        assert found['kit_cache_reads_total{result="hit"}'] == 1

    async def test_mails(self, kit: Runtime, captured_mail: CapturedMail, scrape: Scrape) -> None:
        data = EmailData(subject="Your ticket", recipients=["ada@example.com"])
        await kit.mail.send(template=Ticket(name="Ada", seat=7), email_data=data)
        sender = Sender("Box office", "box@example.com", "example.com")
        for error in (PermanentFailure("no such mailbox"), ConnectionError()):
            with pytest.raises(type(error)):
                await Broken(sender, kit.queue, error).send(template=Ticket(name="Ada", seat=7), email_data=data)
        found = await scrape()
        for outcome in ("sent", "refused", "failed"):
            assert found[f'kit_mails_total{{outcome="{outcome}"}}'] == 1

    async def test_figures_of_the_process(self, scrape: Scrape) -> None:
        found = await scrape()
        assert found["process_cpu_seconds_total"] > 0
        assert found["kit_processes"] == 1
        assert "kit_event_loop_lag_seconds_count" in found
        if sys.platform == "linux":
            assert found["process_resident_memory_bytes"] > 2**20
            assert found["process_open_fds"] > 0


class TestReading:
    async def test_the_format_is_the_one_that_was_asked_for(self, http: httpx.AsyncClient) -> None:
        plain = await http.get("/metrics")
        assert plain.headers["Content-Type"].startswith("text/plain")
        wanted = await http.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
        assert wanted.headers["Content-Type"].startswith("application/openmetrics-text")
        assert wanted.text.endswith("# EOF\n")

    async def test_the_token_is_asked_for(self, db: AsyncSession, serve: Serve) -> None:  # noqa: F811
        client = await serve(METRICS_ENABLED=True, METRICS_TOKEN=SecretStr(TOKEN))
        for given in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}, {"Authorization": "Bearer é"}):
            refused = await client.get("/metrics", headers=[(k.encode(), v.encode()) for k, v in given.items()])
            assert refused.status_code == 401
            assert refused.headers["WWW-Authenticate"] == "Bearer"
            assert TOKEN not in refused.text
        assert (await client.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})).status_code == 200

    @pytest.mark.parametrize("settings", [{}, {"METRICS_ENABLED": True, "METRICS_PORT": 9}])
    async def test_there_is_no_route_without_them_or_with_a_port(
        self,
        db: AsyncSession,
        serve: Serve,  # noqa: F811
        settings: dict[str, Any],
    ) -> None:
        assert (await (await serve(**settings)).get("/metrics")).status_code == 404

    async def test_the_route_is_said_to_be_public_and_in_no_document(self, measured: FastAPI) -> None:
        (route,) = (each for each in listed_routes(measured.routes) if each.path == "/metrics")
        assert route.access == ("public",)
        assert "/metrics" not in measured.openapi()["paths"]

    async def test_a_port_of_their_own_asks_for_the_token_too(self, committed: Database) -> None:
        settings = AppConfig(METRICS_ENABLED=True, METRICS_PORT=free_port(), METRICS_TOKEN=SecretStr(TOKEN))

        def ask(token: str) -> tuple[int, str]:
            url = f"http://{settings.METRICS_HOST}:{settings.METRICS_PORT}/metrics"
            try:
                with urllib.request.urlopen(urllib.request.Request(url, headers={"Authorization": token})) as answer:
                    return answer.status, answer.read().decode()
            except urllib.error.HTTPError as exc:
                with exc:
                    return exc.code, ""

        async with exporting(settings):
            assert (await asyncio.to_thread(ask, "Bearer wrong"))[0] == 401
            status, text = await asyncio.to_thread(ask, f"Bearer {TOKEN}")
            assert status == 200
            assert samples(text)["kit_queues_readable"] == 1
            # Not in a thread: while the event loop is blocked, only the queues cannot be asked.
            status, text = ask(f"Bearer {TOKEN}")
            assert status == 200
            assert samples(text)["kit_queues_readable"] == 0
            with pytest.raises(ConfigError, match=r"METRICS_PORT: cannot listen on 127\.0\.0\.1 port"):
                async with exporting(settings):
                    pass
            assert samples(ask(f"Bearer {TOKEN}")[1])["process_cpu_seconds_total"] > 0  # the first goes on


class TestSettings:
    def test_without_a_port_or_a_token_a_start_is_refused(self) -> None:
        def found(**settings: Any) -> list[str]:
            problems = AppConfig(ENVIRONMENT="production", METRICS_ENABLED=True, **settings).problems()
            return [problem for problem in problems if "METRICS" in problem]

        assert [problem.split()[0] for problem in found()] == ["METRICS_TOKEN"]
        assert found(METRICS_TOKEN=SecretStr(TOKEN[:20])) == ["METRICS_TOKEN is shorter than 32 bytes"]
        assert found(METRICS_PORT=9100) == found(METRICS_TOKEN=SecretStr(uuid4().hex)) == []

    def test_without_the_extra_a_start_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "prometheus_client", None)
        with pytest.raises(ValidationError, match="METRICS_ENABLED needs the extra `metrics`"):
            AppConfig(METRICS_ENABLED=True)

    @pytest.mark.once
    def test_while_they_are_off_the_library_is_not_imported(self) -> None:
        code = "import sys, app.main, app.core.runtime; assert 'prometheus_client' not in sys.modules"
        subprocess.run([sys.executable, "-c", code], cwd=PROJECT_ROOT, check=True)


class TestDeclaration:
    @pytest.fixture
    def counter(self) -> Any:
        made = Counter(f"shop_orders_{uuid4().hex}", "Orders.", "country", max_series=2)
        yield made
        declared.remove(made)

    def test_nothing_is_kept_while_they_are_off(self, counter: Counter) -> None:
        counter.inc("de")
        assert counter._series == {}

    def test_a_name_is_taken_once(self, counter: Counter) -> None:
        with pytest.raises(ValueError, match=f"two metrics are called {counter.name}"):
            Counter(counter.name, "Orders.")

    async def test_too_many_values_count_as_other(self, db: AsyncSession, counter: Counter, scrape: Scrape) -> None:
        for country in ("de", "fr", "it", "es", "de"):
            counter.inc(country, by=2)
        found = {name: value for name, value in (await scrape()).items() if name.startswith(counter.name)}
        assert {name.split('"')[1]: value for name, value in found.items()} == {"de": 4, "fr": 2, "other": 4}

    async def test_the_name_begins_with_that_of_the_module(self, db: AsyncSession, counter: Counter) -> None:
        import app.auth.metrics as part

        part.orders = counter  # type: ignore[attr-defined]
        try:
            with pytest.raises(ConfigError, match=rf"app\.auth\.metrics: .*{counter.name} must begin with auth_"):
                async with exporting(AppConfig(METRICS_ENABLED=True)):
                    pass
        finally:
            del part.orders  # type: ignore[attr-defined]
        assert metrics.requests.family is None
