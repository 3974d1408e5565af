"""The queue's own task."""

from datetime import timedelta

from app.core.configs.app import current_settings
from app.core.db.base import utcnow
from app.core.db.session import current_database
from app.core.services.log import logger
from app.core.services.queue.administration import purge_jobs
from app.core.services.queue.interface import BaseTask
from app.core.services.queue.registry import queued


@queued
class PurgeJobs(BaseTask):
    """Removes completed jobs that are older than `JOBS_KEEP_DAYS`."""

    __task_name__ = "jobs.purge"
    __schedule__ = "17 * * * *"

    async def run(self) -> None:
        """Purge once."""
        kept = timedelta(days=current_settings().JOBS_KEEP_DAYS)
        async with current_database().session_scope() as db:
            removed = await purge_jobs(db=db, before=utcnow() - kept)
        logger.info("completed jobs purged", count=sum(removed.values()))
