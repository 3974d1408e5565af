"""Scheduled tasks: each tick is a job, stored once however many schedulers run; and the scheduled purge."""

import asyncio
from datetime import datetime, timedelta
from functools import partial

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.configs.app import current_settings
from app.core.db.base import utcnow
from app.core.db.integrity import insert_unless_taken
from app.core.db.jobs import Schedule
from app.core.db.session import session_scope, store_with
from app.core.services.failures import Outage
from app.core.services.log import logger
from app.core.services.queue.broker import current_waker
from app.core.services.queue.interface import BaseTask
from app.core.services.queue.registry import RegisteredTask, queued, tasks
from app.core.services.queue.store import new_job, purge_jobs

IN_TIME = timedelta(minutes=1)
"""A tick handled later than this counts as missed."""
AHEAD = timedelta(hours=1)
"""A schedule further ahead than this was advanced by a host with a wrong clock: it restarts from now."""

_LONGEST_SLEEP_SECONDS = 10.0  # notices a corrected clock


class Clock:
    """Stores a job at each tick of every scheduled task, each task on its own: a slow one delays no other."""

    async def run(self) -> None:
        """Run until cancelled."""
        async with asyncio.TaskGroup() as group:
            for task in tasks:
                if task.schedule is not None:
                    group.create_task(self._keep(task))

    async def _keep(self, task: RegisteredTask) -> None:
        outage = Outage("a schedule cannot be kept: trying again", "a schedule is kept again", first=1.0, longest=1.0)
        while True:
            try:
                wake_at = await self.check(task)
                outage.over(task=task.name)
            except Exception as exc:
                wake_at = utcnow() + timedelta(seconds=outage.failed(exc, task=task.name))
            await _sleep_until(wake_at)

    async def check(self, task: RegisteredTask) -> datetime:
        """Store a job if `task` is due and no other scheduler has; return when to look again."""
        schedule = task.schedule
        assert schedule is not None  # noqa: S101  only such tasks are looked at
        async with session_scope() as session:
            now = utcnow()
            reached = await _reached(session, task, now)
            if (due := schedule.next_after(reached)) > now:
                return due
            if await _move_on(session, task, reached, now):
                recent = schedule.next_after(max(reached, now - IN_TIME))
                if schedule.catch_up or recent <= now:
                    # The key is for people: it says which tick this is.
                    job = new_job(task, {}, dedup_key=f"tick {recent if recent <= now else due:%FT%TZ}")
                    store_with(session, job, partial(current_waker(), job))
                else:
                    logger.warning("a scheduled run was missed and is skipped", task=task.name, due=due)
            return schedule.next_after(now)


async def _sleep_until(wake_at: datetime) -> None:
    """Sleep until `wake_at`; wake up early if the clock is set back meanwhile, which makes `wake_at` wrong."""
    begun = utcnow()
    while begun <= (now := utcnow()) < wake_at:  # noqa: ASYNC110  the clock has no event
        await asyncio.sleep(min((wake_at - now).total_seconds(), _LONGEST_SLEEP_SECONDS))


async def _reached(session: AsyncSession, task: RegisteredTask, now: datetime) -> datetime:
    """Return the last tick handled for `task`; one seen for the first time, or far ahead, begins now."""
    statement = select(Schedule.reached_at).where(Schedule.task == task.name)
    if (reached := await session.scalar(statement)) is None:
        await insert_unless_taken(session, Schedule, {"task": task.name, "reached_at": now}, unique=("task",))
        return now
    if reached - now <= AHEAD:
        return reached
    if await _move_on(session, task, reached, now):
        logger.warning("a schedule was ahead of the clock: it goes on from now", task=task.name, reached=reached)
    return now


async def _move_on(session: AsyncSession, task: RegisteredTask, reached: datetime, now: datetime) -> bool:
    """Record the ticks until `now` as handled; False if another scheduler was first."""
    mine = update(Schedule).where(Schedule.task == task.name, Schedule.reached_at == reached)
    return await session.scalar(mine.values(reached_at=now).returning(Schedule.id)) is not None


@queued
class PurgeJobs(BaseTask):
    """Removes completed jobs that are older than `JOBS_KEEP_DAYS`."""

    __task_name__ = "jobs.purge"
    __schedule__ = "17 * * * *"

    async def run(self) -> None:
        """Purge once."""
        kept = timedelta(days=current_settings().JOBS_KEEP_DAYS)
        async with session_scope() as db:
            removed = await purge_jobs(db=db, before=utcnow() - kept)
        logger.info("completed jobs purged", count=sum(removed.values()))
