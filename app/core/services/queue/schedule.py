"""Tasks that run by the clock: each tick is a job, stored once however many schedulers there are."""

from datetime import UTC, datetime, timedelta
from functools import partial

from taskiq import AsyncBroker, ScheduledTask, ScheduleSource, TaskiqScheduler

from app.core.db.base import utcnow
from app.core.db.session import store_with
from app.core.exceptions import UniqueViolation
from app.core.services.log import logger
from app.core.services.queue.registry import tasks
from app.core.services.queue.store import new_job


class RegistrySource(ScheduleSource):
    """The `__schedule__` of every registered task."""

    async def get_schedules(self) -> list[ScheduledTask]:
        """One entry per scheduled task, named after it."""
        return [
            ScheduledTask(
                task_name=task.name,
                labels={},
                args=[],
                kwargs={},
                schedule_id=task.name,
                cron=task.cls.__schedule__ if isinstance(task.cls.__schedule__, str) else None,
                interval=task.cls.__schedule__ if isinstance(task.cls.__schedule__, timedelta) else None,
            )
            for task in tasks
            if task.cls.__schedule__ is not None
        ]


class JobScheduler(TaskiqScheduler):
    """taskiq's scheduler, storing a job instead of sending a message."""

    def __init__(self, broker: AsyncBroker) -> None:
        super().__init__(broker, [RegistrySource()])

    async def on_ready(self, source: ScheduleSource, task: ScheduledTask) -> None:
        """Store the tick; a tick that another scheduler has stored is left to it."""
        from app.core.runtime import runtime

        tick = tick_of(task, utcnow())
        job = new_job(tasks.get(task.task_name), {}, dedup_key=f"{task.task_name}@{tick:%Y-%m-%dT%H:%M:%SZ}")
        try:
            async with runtime().database.session_scope() as session:
                store_with(session, job, partial(runtime().waker, job))
        except UniqueViolation:
            logger.debug("another scheduler was first", task=task.task_name, tick=tick)
        except Exception:
            # An error in here would end in taskiq's background task, where nobody sees it.
            logger.exception("a scheduled task could not be stored", task=task.task_name, tick=tick)


def tick_of(task: ScheduledTask, now: datetime) -> datetime:
    """The moment a run at `now` stands for: the same in every scheduler."""
    if task.cron is not None:
        return now.replace(second=0, microsecond=0)
    interval = task.interval.total_seconds() if isinstance(task.interval, timedelta) else float(task.interval or 1)
    return datetime.fromtimestamp(now.timestamp() // interval * interval, UTC)
