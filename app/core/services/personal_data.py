"""Personal data of one user over all modules: export and erasure. A module answers in its `personal_data.py`."""

from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from tempfile import SpooledTemporaryFile
from typing import IO, Any, Protocol, runtime_checkable

from pydantic_core import to_json
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.db.jobs import LISTEN_TASK, Job
from app.core.db.repository import BaseRepository
from app.core.db.session import session_scope
from app.core.process import Slot
from app.core.services.queue.store import erase_jobs

MAX_IN_MEMORY = 1024 * 1024


@runtime_checkable
class PersonalData(Protocol):
    """What one module keeps about users. An installed package implements it without importing it."""

    def export(self, user_id: int, *, db: AsyncSession) -> AsyncIterator[tuple[str, Mapping[str, Any]]]:
        """Yield kind and values of everything that is about the user: no secret, nothing about somebody else."""

    async def erase(self, user_id: int, *, db: AsyncSession) -> None:
        """Delete what is about the user, or make it nobody's. The caller commits, and may call it again."""


current_personal_data = Slot[Mapping[str, PersonalData]]()
"""The answers of the modules by name, those first that depend on others."""


async def export_personal_data(user_id: int, *, db: AsyncSession) -> IO[bytes]:
    """Write `{"data": {"auth": [{kind: values}, ...], ...}}`: a list for each module and for core.

    A large one is a file: it costs no memory, and no unit of work while a slow client reads it.
    """
    file = SpooledTemporaryFile(max_size=MAX_IN_MEMORY)  # noqa: SIM115  the caller reads and closes it
    before_name = b'{"data":{'
    found = {name: data.export(user_id, db=db) for name, data in current_personal_data().items()}
    found["core"] = (("job", job) async for job in jobs_of(f"user:{user_id}", db=db))
    for name, rows in found.items():
        file.write(before_name + to_json(name) + b":[")
        before_name, before_row = b",", b""
        async for kind, values in rows:
            file.write(before_row + to_json({kind: values}))
            before_row = b","
        file.write(b"]")
    file.write(b"}}")
    file.seek(0)
    return file


async def erase_personal_data(user_id: int) -> int:
    """Erase the jobs, then in a unit of work for each module; return how many jobs still have to run.

    Jobs come first: what one has stored by the time it ends is found then. Modules may leave others to the user.
    """

    async def finish_jobs() -> int:
        async with session_scope() as db:
            return await erase_jobs(db=db, principals=[f"user:{user_id}"])

    left = await finish_jobs()
    for data in current_personal_data().values():
        async with session_scope() as db:
            await data.erase(user_id, db=db)
    return max(left, await finish_jobs())


async def jobs_of(principal: str, *, db: AsyncSession, since: datetime | None = None) -> AsyncIterator[dict[str, Any]]:
    """Yield the jobs of `principal`: the data of tasks, what mails say, the names of events.

    Not what an event holds: that may be about the administrator who caused it.
    """
    fields = ("task", "status", "created_at", "finished_at", "payload")
    async for job in BaseRepository[Job]().stream(db=db, fields=fields, principal=principal):
        if since and job["created_at"] < since:
            continue
        data = job.pop("payload")
        if job["task"] == LISTEN_TASK:
            data = {name: data.get(name) for name in ("event", "listener")}
        elif mail := data.get("email_data"):
            data = {"subject": mail.get("subject"), "fields": data.get("fields")}
        yield {**job, "data": data}
