"""Mail services: what all share, the task of queued mails, and the one that captures mails as files."""

import asyncio
import os
import tempfile
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from app.core.configs import make_private
from app.core.metrics import mails
from app.core.services.log import logger
from app.core.services.mail.envelope import EmailCopy, EmailData, parse_mailbox
from app.core.services.mail.interface import BaseTemplate, MailServiceInterface, current_mail
from app.core.services.mail.message import OutgoingMail, Sender, compose
from app.core.services.queue.interface import BaseTask, PermanentFailure, QueueServiceInterface
from app.core.services.queue.registry import queued

MAX_STORED_BYTES = 50 * 1024 * 1024
"""Maximum size of the attachments of one queued mail, over all its jobs."""


class MailServiceBase(MailServiceInterface):
    """Composes and queues mails; a subclass delivers them."""

    def __init__(self, sender: Sender, queue: QueueServiceInterface) -> None:
        self._sender = sender
        self._queue = queue

    async def send(self, template: BaseTemplate, email_data: EmailData) -> None:
        failures: list[Exception] = []
        for mail in compose(template, email_data, self._sender):
            try:
                await self.deliver(mail)
                mails.inc("sent")
            except Exception as exc:  # one who is refused keeps the mail from nobody else
                mails.inc("refused" if isinstance(exc, PermanentFailure) else "failed")
                failures.append(exc)
        if failures:
            raise next((exc for exc in failures if not isinstance(exc, PermanentFailure)), failures[0])

    async def queue(self, template: BaseTemplate, email_data: EmailData) -> None:
        fields = template._to_row()
        for part in self._parts(email_data):  # a job each: one that fails repeats no other
            data = {"template": template.template_name(), "fields": fields, "email_data": part}
            await self._queue.push(SendMail, data)

    def _parts(self, data: EmailData) -> Iterator[EmailData]:
        people = data.people()
        if (stored := data.attached_bytes * len(people)) > MAX_STORED_BYTES:
            raise ValueError(
                f"attachments are stored once for each of {len(people)} people, {stored} bytes in all,"
                f" at most {MAX_STORED_BYTES} are allowed: mail a link instead"
            )
        message_id = f"<{uuid4().hex}@{self._sender.domain}>"
        for person in people:
            if data.is_shared:
                yield EmailCopy(**dict(data), copy_for=person, message_id=message_id)
            else:
                yield data.model_copy(update={"recipients": [person]})

    @abstractmethod
    async def deliver(self, mail: OutgoingMail) -> None:
        """Hand one mail to the server or service that sends it; PermanentFailure if it is refused for good."""


class MailTask(BaseTask):
    """A task that sends a mail; retried for about a day while the server is down."""

    queue = "mail"
    max_attempts = 30
    backoff = 5.0
    timeout = 120.0


@queued
class SendMail(MailTask):
    """Sends one queued mail."""

    __task_name__ = "core.mail.send"
    __former_names__ = ("mail.send",)  # still written by processes of the version before while a newer one is deployed

    @classmethod
    def _get_principal(cls, payload: Mapping[str, Any]) -> str:
        data = payload["email_data"]
        return mail_principal(data.get("copy_for") or data["recipients"][0])

    async def run(self, template: str, fields: dict[str, Any], email_data: EmailCopy | EmailData) -> None:
        """Send once."""
        # Only classes that are loaded anyway: a row must not choose what gets imported.
        kind = BaseTemplate.known.get(template)
        if kind is None:
            raise LookupError(f"no mail template is called {template!r}: was it renamed or removed?")
        await current_mail().send(kind._from_row(fields), email_data)


def mail_principal(mailbox: str) -> str:
    """Return the principal of queued mails to this mailbox, as `erase_jobs` takes it."""
    return f"mailto:{parse_mailbox(mailbox).addr_spec.casefold()}"


class CaptureMailService(MailServiceBase):
    """Writes each mail to `<job id>.eml` in a folder and logs it."""

    def __init__(self, sender: Sender, queue: QueueServiceInterface, folder: Path) -> None:
        super().__init__(sender, queue)
        self._folder = folder

    async def deliver(self, mail: OutgoingMail) -> None:
        path = self._folder / f"{mail.key}.eml"
        # As a server that puts a mail into somebody's mailbox: of a mail to several, each file says whose copy it is.
        mail.message["Delivered-To"] = mail.recipient
        # Plain line ends: who looks for a link in the file must not get a carriage return with it.
        content = mail.message.as_bytes(policy=mail.message.policy.clone(linesep="\n"))
        await asyncio.to_thread(_write, path, content)
        logger.info("mail captured", recipient=mail.recipient, file=str(path))


def _write(path: Path, content: bytes) -> None:
    """Write the whole file or none: someone may be reading the folder."""
    make_private(path.parent)
    handle, draft = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    os.replace(draft, path)
