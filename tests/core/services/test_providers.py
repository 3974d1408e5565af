"""Classes of a fork in the place of the built-in services."""

from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest
from pydantic import SecretStr

from app.core.configs import AppConfig
from app.core.db.session import Database
from app.core.deps import CacheService, QueueService, cached
from app.core.exceptions import ConfigError
from app.core.runtime import open_runtime
from app.core.services.cache import CacheServiceInterface, NotKept
from app.core.services.events import EventsService
from app.core.services.mail import BaseTemplate, EmailData, MailServiceInterface
from app.core.services.providers import check_providers
from app.core.services.queue import QueueServiceInterface
from app.main import create_app
from tests.core.services.stage import CurtainRaised, Play, Stage
from tests.core.services.templates import Ticket
from tests.processes import kit


class PlainCache(CacheServiceInterface):
    """Implements the interface and nothing else."""

    made: ClassVar[list["PlainCache"]] = []

    def __init__(self, settings: AppConfig, queue: QueueServiceInterface, missing: int = 3) -> None:
        self.asked = (settings, queue, missing)
        self.values: dict[str, Any] = {}
        self.is_closed = False
        self.made.append(self)

    async def get(self, key: str, default: Any = None) -> Any:
        return self.values.get(key, default)

    async def set(self, key: str, value: Any, *, ttl: float | None = None, tags: Iterable[str] = ()) -> None:
        self.values[key] = value

    async def get_or_set(
        self, key: str, factory: Callable[[], Awaitable[Any]], *, ttl: float | None = None, tags: Iterable[str] = ()
    ) -> Any:
        if key in self.values:
            return self.values[key]
        value = await factory()
        if isinstance(value, NotKept):
            return value.value
        self.values[key] = value
        return value

    async def delete(self, *keys: str) -> bool:
        for key in keys:
            self.values.pop(key, None)
        return True

    async def delete_pattern(self, pattern: str) -> bool:
        return True

    async def invalidate(self, *tags: str) -> bool:
        return True

    def namespace(self, name: str) -> "PlainCache":
        return self

    async def close(self) -> None:
        self.is_closed = True


class PlainMail(MailServiceInterface):
    """Keeps what it is given."""

    sent: ClassVar[list[tuple[BaseTemplate, EmailData]]] = []

    async def send(self, template: BaseTemplate, email_data: EmailData) -> None:
        self.sent.append((template, email_data))

    async def queue(self, template: BaseTemplate, email_data: EmailData) -> None:
        self.sent.append((template, email_data))


class CountedEvents(EventsService):
    """Extends a built-in service: its `__init__` is asked for what it has parameters for."""

    count = 0

    def dispatch(self, event: Any) -> None:
        CountedEvents.count += 1
        super().dispatch(event)


class Greedy(PlainMail):
    """Asks for what there is not."""

    def __init__(self, settings: AppConfig, smtp: str) -> None:
        """Never called."""


class Half(MailServiceInterface):
    """Leaves a method out."""

    async def send(self, template: BaseTemplate, email_data: EmailData) -> None:
        """Never called."""


def configured(database: Database, folder: Path, **providers: str) -> AppConfig:
    url = SecretStr(database.engine.url.render_as_string(hide_password=False))
    here = {name: f"{__name__}.{kind}" for name, kind in providers.items()}
    return AppConfig(DATABASE_URL=url, VAR_DIR=folder, **here)  # type: ignore[arg-type]  # names of settings


async def test_each_is_what_the_setting_names(committed: Database, tmp_path: Path, scene: Stage) -> None:
    settings = configured(
        committed,
        tmp_path / "var",
        CACHE_PROVIDER="PlainCache",
        EVENTS_PROVIDER="CountedEvents",
        MAIL_PROVIDER="PlainMail",
    )
    async with open_runtime(settings, run_jobs=False) as opened:
        cache = PlainCache.made[-1]
        assert opened.cache is cache
        assert cache.asked == (settings, opened.queue, 3)
        opened.events.dispatch(CurtainRaised(act=1))
        await opened.background.close(10)
        assert await opened.runner.drain() == 2
        await opened.mail.queue(Ticket(name="Ada", seat=1), EmailData(subject="Hi", recipients=["ada@example.com"]))
        assert not cache.is_closed
    assert cache.is_closed
    assert (CountedEvents.count, len(scene.values("first"))) == (1, 1)
    assert [data.subject for _, data in PlainMail.sent] == ["Hi"]
    assert not (tmp_path / "var" / "mail").exists()  # nothing is captured


async def test_routes_get_them(committed: Database, tmp_path: Path) -> None:
    settings = configured(committed, tmp_path, CACHE_PROVIDER="PlainCache")
    app = create_app(settings, run_jobs=False)
    calls: list[str] = []

    @app.get("/fond")
    @cached(ttl=60, key_builder=lambda f, *a, **kw: "fond")
    async def fond(queue: QueueService) -> dict[str, int]:
        calls.append("made")
        await queue.push(Play, {"number": 1})
        return {"made": len(calls)}

    @app.delete("/fond")
    async def forget(cache: CacheService) -> None:
        await cache.delete("fond")

    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client,
    ):
        for expected in (1, 1):
            assert (await client.get("/fond")).json() == {"made": expected}
        await client.delete("/fond")
        assert (await client.get("/fond")).json() == {"made": 2}


@pytest.mark.once
@pytest.mark.parametrize(
    ("setting", "path", "said"),
    [
        ("CACHE_PROVIDER", "app.gone.Cache", "cannot be loaded: ModuleNotFoundError: No module named 'app.gone'"),
        ("MAIL_PROVIDER", f"{__name__}.Gone", "cannot be loaded: AttributeError: "),
        ("MAIL_PROVIDER", "nonsense", "cannot be loaded: ValueError: "),
        ("MAIL_PROVIDER", f"{__name__}.PlainCache", "is no subclass of MailServiceInterface"),
        ("MAIL_PROVIDER", f"{__name__}.configured", "is no subclass of MailServiceInterface"),
        ("MAIL_PROVIDER", f"{__name__}.Half", "does not implement queue of MailServiceInterface"),
        ("MAIL_PROVIDER", f"{__name__}.Greedy", "asks for smtp: its __init__ may take settings, database, "),
    ],
)
def test_one_that_cannot_be_used_stops_the_start(setting: str, path: str, said: str) -> None:
    settings = AppConfig().model_copy(update={setting: path})
    with pytest.raises(ConfigError) as refused:
        check_providers(settings)
    assert str(refused.value).startswith(f"{setting}={path} {said}")
    with pytest.raises(ConfigError):
        create_app(settings)


@pytest.mark.once
def test_commands_say_it_in_one_line(tmp_path: Path) -> None:
    done = kit("worker", VAR_DIR=str(tmp_path), QUEUE_PROVIDER="app.gone.Queue")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("QUEUE_PROVIDER=app.gone.Queue cannot be loaded: ")


@pytest.mark.once
def test_doctor_does_not_look_for_a_mail_server(tmp_path: Path) -> None:
    done = kit("doctor", VAR_DIR=str(tmp_path), MAIL_PROVIDER=f"{__name__}.PlainMail", SMTP_HOST="mail.invalid")
    assert f"sent by {__name__}.PlainMail" in done.stdout
    assert "mail.invalid" not in done.stdout
