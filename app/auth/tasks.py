"""Tasks of this module: mails with links, erasure, scheduled cleanup."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any, ClassVar

from fastapi import Depends

from app.auth.config import get_auth_config
from app.auth.emails.service import AccountMailService, LinkRequest, Links
from app.auth.events import UserDeleted
from app.auth.repositories import OneTimeTokenRepository, SessionRepository, UserRepository
from app.core.configs import get_settings
from app.core.db import session_scope, utcnow
from app.core.deps import DBSession, EventsService, MailService, QueueService, queued
from app.core.services.mail import MailTask, mail_principal
from app.core.services.personal_data import erase_personal_data
from app.core.services.queue import BaseTask, erase_jobs


async def account_mails(mail: MailService) -> AccountMailService:
    """Return the service that sends account mails."""
    return AccountMailService(config=get_auth_config(), mail=mail, links=Links(get_settings()))


AccountMails = Annotated[AccountMailService, Depends(account_mails)]


class LinkTask(MailTask):
    """Base of tasks that mail a link. Without a user they do nothing: an unknown address queues them too."""

    send: ClassVar[Callable[..., Awaitable[None]]]
    priority = 10  # somebody waits for it

    async def run(
        self,
        user_id: int | None,
        *,
        db: DBSession,
        mails: AccountMails,
        stamp: int = 0,
        asked_at: datetime | None = None,
        session_id: int | None = None,
        email: str | None = None,
    ) -> None:
        await type(self).send(mails, LinkRequest(user_id, stamp, asked_at, session_id, email), db=db)


@queued
class SendPasswordReset(LinkTask):
    """Mail a link for a new password."""

    __task_name__ = "auth.send_password_reset"
    send = AccountMailService.send_password_reset


@queued
class SendVerification(LinkTask):
    """Mail a link that verifies the account's address."""

    __task_name__ = "auth.send_verification"
    send = AccountMailService.send_verification


@queued
class SendEmailChange(LinkTask):
    """Mail a link to a new address that makes it the account's."""

    __task_name__ = "auth.send_email_change"
    priority = LinkTask.priority
    send = AccountMailService.send_email_change

    @classmethod
    def _get_principal(cls, payload: Mapping[str, Any]) -> str:
        return f"user:{payload['user_id']}"


@queued
class EraseUser(BaseTask):
    """Erase a deleted user: at once the jobs that have ended, everything after `USER_ERASURE_DAYS`.

    Jobs that have yet to run may store data again, an event its client, so it comes back until there are none.
    """

    __task_name__ = "auth.erase_user"
    __former_names__ = ("auth.erase_jobs",)

    async def run(self, user_id: int, queue: QueueService) -> None:
        async with session_scope(read_only=True) as db:
            user = await UserRepository().require(db=db, id=user_id, with_deleted=True)
        if user.deleted_at is None:
            return
        if not user.password_hash or utcnow() - user.deleted_at >= timedelta(days=get_auth_config().USER_ERASURE_DAYS):
            left = await erase_personal_data(user_id)
        else:
            async with session_scope() as db:
                left = await erase_jobs(db=db, principals=[f"user:{user_id}", mail_principal(user.email)])
        if left:
            await queue.push(task=EraseUser, data={"user_id": user_id}, delay=timedelta(hours=1))


@queued
class EraseDeletedUsers(BaseTask):
    """Queue the erasure of users who were deleted `USER_ERASURE_DAYS` ago."""

    __task_name__ = "auth.erase_deleted"
    __schedule__ = "27 * * * *"

    async def run(self, db: DBSession, queue: QueueService) -> None:
        before = utcnow() - timedelta(days=get_auth_config().USER_ERASURE_DAYS)
        for user_id in await UserRepository().to_erase(db=db, deleted_before=before, limit=500):
            await queue.push(task=EraseUser, data={"user_id": user_id}, dedup_key=str(user_id))


@queued
class PurgeExpiredTokens(BaseTask):
    """Delete expired sessions and tokens."""

    __task_name__ = "auth.purge_expired"
    __schedule__ = "17 3 * * *"

    async def run(self, db: DBSession) -> None:
        await SessionRepository().delete_expired(db=db)
        await OneTimeTokenRepository().delete_expired(db=db)


@queued
class DeleteUnverified(BaseTask):
    """Delete accounts whose address was not verified in time: address and name are free again."""

    __task_name__ = "auth.delete_unverified"
    __schedule__ = "37 * * * *"

    async def run(self, db: DBSession, events: EventsService) -> None:
        users = UserRepository()
        while get_auth_config().verification_required and (overdue := await users.lock_overdue(db=db)):
            for user in overdue:
                await users.change(db=db, user=user, deleted_at=utcnow())
                events.dispatch(UserDeleted(**user.to_dict()))
            await users.commit(db=db)
