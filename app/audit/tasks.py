"""Work of this module that runs by the clock."""

from app.audit.config import get_audit_config
from app.audit.deps import audit_service
from app.auth import get_gateway
from app.core.db import session_scope
from app.core.deps import queued
from app.core.services.queue import BaseTask


@queued
class PurgeExpired(BaseTask):
    """Remove events older than `AUDIT_KEEP_DAYS`."""

    __task_name__ = "audit.purge_expired"
    __schedule__ = "47 3 * * *"

    async def run(self) -> None:
        service = await audit_service(await get_gateway())
        async with session_scope() as db:
            await service.purge(get_audit_config().kept, db=db)
