"""The queue's own task."""

from datetime import timedelta

from app.core.configs import get_settings
from app.core.db.base import utcnow
from app.core.services.log import logger
from app.core.services.queue.interface import BaseTask
from app.core.services.queue.registry import queued


@queued
class PurgeJobs(BaseTask):
    """Removes completed jobs that are older than `JOBS_KEEP_DAYS`."""

    __task_name__ = "jobs.purge"
    __schedule__ = "17 * * * *"

    async def run(self) -> None:
        """Purge once."""
        from app.core.runtime import runtime

        removed = await runtime().runner.store.purge(utcnow() - timedelta(days=get_settings().JOBS_KEEP_DAYS))
        logger.info("completed jobs purged", count=removed)
