"""Scheduled work of this module."""

from sqlalchemy import delete

from app.api_keys.models import AccessToken
from app.core.db import db_now
from app.core.deps import DBSession, queued
from app.core.services.queue import BaseTask


@queued
class PurgeExpiredTokens(BaseTask):
    """Delete expired access tokens."""

    __task_name__ = "api_keys.purge_expired"
    __schedule__ = "37 * * * *"

    async def run(self, db: DBSession) -> None:
        await db.execute(delete(AccessToken).where(AccessToken.expires_at <= db_now()))
