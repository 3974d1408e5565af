"""What tests of every module use."""

import asyncio
import email.policy
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from email.parser import BytesParser
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import freezegun
import httpx
import httpx2
from freezegun.api import FakeDatetime
from sqlalchemy import Connection, Engine, event

from app.core.configs.integrations import Integration
from app.core.db.installation import KeyPrefix
from app.core.db.session import current_session, on_commit
from app.core.runtime import runtime
from app.core.services.events import BaseEvent, EventsServiceInterface
from app.core.services.http import HttpClient

E = TypeVar("E", bound=BaseEvent)

PASSWORD = "correct horse battery staple"
"""The password of every user a factory makes."""


def program(name: str) -> str | None:
    """The path of a program; servers are where no user's search path leads."""
    servers = [*map(str, Path("/usr/lib/postgresql").glob("*/bin")), "/usr/sbin", "/usr/local/sbin"]
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *servers]))


def key_prefix(text: str) -> KeyPrefix:
    """A prefix of Redis keys that asks no database."""
    return KeyPrefix(text, lambda: runtime().database)


class CapturedMail:
    """The mails the service captured instead of sending."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def clear(self) -> None:
        """Forget what was captured so far."""
        for path in self.folder.glob("*.eml"):
            path.unlink()

    def messages(self) -> list[EmailMessage]:
        """Every captured mail, oldest first."""
        paths = sorted(self.folder.glob("*.eml"), key=lambda path: path.stat().st_mtime_ns)
        parser = BytesParser(EmailMessage, policy=email.policy.default)
        return [parser.parsebytes(path.read_bytes()) for path in paths]

    def recipients(self) -> list[str]:
        """Who got each of them."""
        return [str(message["Delivered-To"]) for message in self.messages()]

    def to(self, address: str) -> list[EmailMessage]:
        """Every captured mail that `address` got, oldest first, be it by To, Cc or Bcc."""
        return [message for message in self.messages() if message["Delivered-To"] == address]

    def token_for(self, address: str) -> str:
        """The token of the link in the newest mail to `address`."""
        body = self.to(address)[-1].get_body(("plain",))
        assert body is not None
        found = re.search(r"#token=([\w-]+)", body.get_content())
        assert found is not None, body.get_content()
        return found[1]


class HttpStubs(httpx2.AsyncBaseTransport):
    """Answers of other services, in the place of the network; what is not stubbed is refused.

    Retries, limits and the log are the real ones: only the connections are not.
    """

    def __init__(self, integrations: Mapping[str, Integration] | None = None) -> None:
        self._integrations = dict(integrations or {})
        self._answers: dict[tuple[str, str], list[httpx2.Response | Exception]] = {}
        self.requests: list[httpx2.Request] = []
        self.refused: list[str] = []
        self.client = HttpClient(self._integrations, open_transport=lambda _: self)

    def integration(self, name: str, **fields: Any) -> None:
        """Configure an integration for this test."""
        self._integrations[name] = Integration(**fields)

    def respond(self, method: str, url: str, status: int = 200, **given: Any) -> None:
        """Answer a call of `url`, without its query; `given` is what a Response takes. The last answer repeats."""
        self._answers.setdefault((method, url), []).append(httpx2.Response(status, **given))

    def fail(self, method: str, url: str, error: Exception) -> None:
        """Raise `error`, as `httpx2.ConnectError("refused")`, where `respond` would answer."""
        self._answers.setdefault((method, url), []).append(error)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        url = str(request.url.copy_with(query=None))
        self.requests.append(request)
        answers = self._answers.get((request.method, url))
        if not answers:
            self.refused.append(f"{request.method} {url}")
            raise AssertionError(f"not stubbed: {self.refused[-1]}")
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return httpx2.Response(answer.status_code, headers=answer.headers, content=answer.content)


class PublishedEvents(EventsServiceInterface):
    """The events whose transaction has committed, in that order; they go on to their listeners as ever.

    What is dispatched outside a unit of work counts as published at once.
    """

    def __init__(self, service: EventsServiceInterface) -> None:
        self._service = service
        self._events: list[BaseEvent] = []
        self._news = asyncio.Event()

    @classmethod
    @contextmanager
    def recorded(cls) -> Iterator["PublishedEvents"]:
        """Listen in on the application's events while the block runs."""
        opened = runtime()
        service = opened.events
        opened.events = recorder = cls(service)
        try:
            yield recorder
        finally:
            opened.events = service

    def dispatch(self, event: BaseEvent) -> None:
        self._service.dispatch(event)
        session = current_session()
        if session is None:
            self._note(event)
        else:
            on_commit(session, partial(self._note, event))

    def all(self) -> list[BaseEvent]:
        """Every event."""
        return list(self._events)

    def of(self, kind: type[E]) -> list[E]:
        """The events of this class and of those that extend it, as listeners of it hear them."""
        return [event for event in self._events if isinstance(event, kind)]

    async def wait_for(
        self,
        kind: type[E],
        *,
        timeout: float = 5,  # noqa: ASYNC109  a failure that says what was published
        where: Callable[[E], bool] = lambda event: True,
    ) -> E:
        """The first event of `kind` that fits, already published or soon; AssertionError where none comes in time."""
        try:
            async with asyncio.timeout(timeout):
                while True:
                    for event in self.of(kind):
                        if where(event):
                            return event
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            published = "".join(f"\n  {event!r}" for event in self._events) or " nothing"
            raise AssertionError(f"no fitting {kind.__name__} within {timeout:g} s; published:{published}") from None

    def _note(self, event: BaseEvent) -> None:
        self._events.append(event)
        self._news.set()


async def login_user(client: httpx.AsyncClient, user: Any, password: str = PASSWORD) -> dict[str, str]:
    """Log `user` in, set the client's Authorization header and give back the token answer."""
    answer = await client.post("/api/v1/auth/login", data={"username": user.email, "password": password})
    assert answer.status_code == 200, answer.text
    tokens: dict[str, str] = answer.json()
    client.headers["Authorization"] = f"Bearer {tokens['access_token']}"
    return tokens


def freeze(moment: datetime | timedelta | str) -> AbstractContextManager[Any]:
    """Stop the clock at `moment` (a timedelta counts from now), PostgreSQL's too; the event loop keeps real time."""
    if isinstance(moment, timedelta):
        moment = datetime.now(UTC) + moment
    return freezegun.freeze_time(moment, real_asyncio=True)


@event.listens_for(Engine, "before_cursor_execute", retval=True)
def _stop_postgresql(connection: Connection, _cursor: Any, statement: str, parameters: Any, *_: Any) -> tuple[str, Any]:
    """Have the clock of PostgreSQL stand where Python's does, as that of SQLite does by itself."""
    now = datetime.now(UTC)
    if isinstance(now, FakeDatetime) and connection.dialect.name == "postgresql":
        statement = statement.replace("statement_timestamp()", f"'{now.isoformat()}'::timestamptz")
    return statement, parameters
