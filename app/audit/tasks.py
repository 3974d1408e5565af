"""Scheduled work of this module."""

from app.audit.config import get_audit_config
from app.audit.deps import Audit
from app.core.deps import DBSession, queued
from app.core.services.queue import BaseTask


@queued
class PurgeExpiredEvents(BaseTask):
    """Delete events older than `AUDIT_KEEP_DAYS`."""

    __task_name__ = "audit.purge_expired"
    __schedule__ = "47 3 * * *"

    async def run(self, db: DBSession, service: Audit) -> None:
        await service.purge(get_audit_config().kept, db=db)
