"""Scheduled tasks: each tick is a job, stored once however many schedulers run; and the scheduled purge."""

import asyncio
from datetime import datetime, timedelta
from functools import partial

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.configs.app import current_settings
from app.core.db.base import db_now
from app.core.db.integrity import insert_unless_taken
from app.core.db.jobs import Schedule
from app.core.db.session import session_scope, store_with
from app.core.services.failures import Outage
from app.core.services.log import logger
from app.core.services.queue.broker import current_waker
from app.core.services.queue.interface import BaseTask
from app.core.services.queue.limits import purge_gates
from app.core.services.queue.registry import RegisteredTask, queued, tasks
from app.core.services.queue.store import new_job, purge_jobs

IN_TIME = timedelta(minutes=1)
"""A tick handled later than this counts as missed."""
AHEAD = timedelta(minutes=1)
"""A schedule further ahead than this was advanced by a wrong clock that has been set back: it restarts from now."""

_LONGEST_SLEEP_SECONDS = 60.0  # then the database's clock is read again: it may have been set


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
                pause = (await self.check(task)).total_seconds()
                outage.over(task=task.name)
            except Exception as exc:
                pause = outage.failed(exc, task=task.name)
            await asyncio.sleep(min(pause, _LONGEST_SLEEP_SECONDS))

    async def check(self, task: RegisteredTask) -> timedelta:
        """Store a job if `task` is due and no other scheduler has; return the time until its next tick."""
        schedule = task.schedule
        assert schedule is not None  # noqa: S101  only such tasks are looked at
        async with session_scope() as session:
            now, reached = await _progress(session, task)
            if (due := schedule.next_after(reached)) > now:
                return due - now
            if await _move_on(session, task, reached, now):
                recent = schedule.next_after(max(reached, now - IN_TIME))
                if schedule.catch_up or recent <= now:
                    # The key is for people: it says which tick this is.
                    job = new_job(task, {}, dedup_key=f"tick {recent if recent <= now else due:%FT%TZ}")
                    store_with(session, job, partial(current_waker(), job))
                else:
                    logger.warning("a scheduled run was missed and is skipped", task=task.name, due=due)
            return schedule.next_after(now) - now


async def _progress(session: AsyncSession, task: RegisteredTask) -> tuple[datetime, datetime]:
    """Return the database's time and the last tick handled for `task`; start from now if it is new, or far ahead."""
    reached_at = select(Schedule.reached_at).where(Schedule.task == task.name).scalar_subquery()
    now, reached = (await session.execute(select(db_now(), reached_at))).one()
    if reached is None:
        await insert_unless_taken(session, Schedule, {"task": task.name, "reached_at": now}, unique=("task",))
    elif reached - now <= AHEAD:
        return now, reached
    elif await _move_on(session, task, reached, now):
        logger.warning("a schedule was ahead of the clock: it goes on from now", task=task.name, reached=reached)
    return now, now


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
            await purge_gates(db=db)
            removed = await purge_jobs(db=db, older_than=kept)
        logger.info("completed jobs purged", count=sum(removed.values()))
