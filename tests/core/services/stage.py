"""Tasks, events and listeners of these tests. What runs is noted on the stage and does what the test asks for."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from app.core.db.session import current_session
from app.core.deps import listener, queued
from app.core.services.events import BaseEvent, ListenedEvent
from app.core.services.log.context import conversation_id, request_id
from app.core.services.queue import BaseTask, current_job


@dataclass
class Entry:
    """Who entered, with what, and what it saw around it."""

    name: str
    value: Any
    attempt: int | None
    ids: tuple[str | None, str | None]
    in_unit: bool


@dataclass
class Stage:
    """What ran, and what is to happen when it does."""

    entries: list[Entry] = field(default_factory=list)
    scenes: dict[str, Callable[[], Awaitable[None]]] = field(default_factory=dict)

    async def enter(self, name: str, value: Any) -> None:
        """Note the entry and play the scene of that name."""
        job = current_job()
        attempt = job.attempt if job else None
        ids = (request_id(), conversation_id())
        self.entries.append(Entry(name, value, attempt, ids, current_session() is not None))
        if scene := self.scenes.get(name):
            await scene()

    def fails(self, name: str, error: BaseException) -> None:
        """Whoever enters as `name` raises `error`."""

        async def scene() -> None:
            raise error

        self.scenes[name] = scene

    def values(self, name: str) -> list[Any]:
        """What entered as `name`."""
        return [entry.value for entry in self.entries if entry.name == name]


stage = Stage()


@queued
class Play(BaseTask):
    """Enters as `play`."""

    __task_name__ = "test.play"
    max_attempts = 3

    async def run(self, number: int, at: datetime | None = None) -> None:
        """Enter."""
        await stage.enter("play", number if at is None else (number, at))


@queued
class Hurry(BaseTask):
    """Enters as `hurry` and has little time."""

    __task_name__ = "test.hurry"
    timeout = 0.05

    async def run(self) -> None:
        """Enter."""
        await stage.enter("hurry", None)


@queued
class Say(BaseTask):
    """Enters as `say`."""

    __task_name__ = "test.say"

    async def run(self, text: str) -> None:
        """Enter."""
        await stage.enter("say", text)


@queued
class SendMail(BaseTask):
    """A fork's own task, called as the core's was before. Enters as `own mail`."""

    __task_name__ = "mail.send"

    async def run(self, recipient: str, text: str) -> None:
        """Enter."""
        await stage.enter("own mail", (recipient, text))


@queued
class Tick(BaseTask):
    """Enters as `tick` every second while a schedule runs."""

    __task_name__ = "test.tick"
    __schedule__ = timedelta(seconds=1)

    async def run(self) -> None:
        """Enter."""
        await stage.enter("tick", None)


class Unqueued(BaseTask):
    """A task without `@queued`."""

    __task_name__ = "test.play"

    async def run(self, number: int) -> None:
        """Never called."""


class CurtainRaised(BaseEvent):
    """Heard by two durable listeners and two that are not."""

    act: int
    note: str = "as written"


@listener(CurtainRaised)
async def first(event: ListenedEvent[CurtainRaised]) -> None:
    await stage.enter("first", event)


@listener(CurtainRaised)
async def second(event: ListenedEvent[CurtainRaised]) -> None:
    await stage.enter("second", event)


@listener(CurtainRaised, durable=False)
async def light(event: ListenedEvent[CurtainRaised]) -> None:
    await stage.enter("light", event)


@listener(CurtainRaised, durable=False)
async def other_light(event: ListenedEvent[CurtainRaised]) -> None:
    await stage.enter("other_light", event)
