"""What every mail service does alike: queueing, and composing before it hands over."""

from abc import abstractmethod
from typing import Any

from pydantic import SecretBytes, SecretStr

from app.core.services.mail.interface import BaseTemplate, EmailData, MailServiceInterface
from app.core.services.mail.message import OutgoingMail, Sender, compose
from app.core.services.queue.interface import BaseTask, QueueServiceInterface
from app.core.services.queue.registry import queued


class MailServiceBase(MailServiceInterface):
    """Composes mails; a subclass hands them over."""

    def __init__(self, sender: Sender, queue: QueueServiceInterface) -> None:
        self._sender = sender
        self._queue = queue

    async def send(self, template: BaseTemplate, email_data: EmailData) -> None:
        for mail in compose(template, email_data, self._sender):
            await self._hand_over(mail)

    async def queue(self, template: BaseTemplate, email_data: EmailData) -> None:
        fields = _storable(template)
        for recipient in email_data.recipients:  # a job each: one that fails repeats no other
            data = {
                "template": template.template_name(),
                "fields": fields,
                "email_data": email_data.model_copy(update={"recipients": [recipient]}),
            }
            await self._queue.push(SendMail, data)

    @abstractmethod
    async def _hand_over(self, mail: OutgoingMail) -> None:
        """Give one mail to whoever delivers it; PermanentFailure where that is refused for good."""


class MailTask(BaseTask):
    """A task that sends a mail: a server that is down is tried again for about a day."""

    max_attempts = 30
    backoff = 5.0
    timeout = 120.0


@queued
class SendMail(MailTask):
    """Sends one queued mail."""

    __task_name__ = "mail.send"

    async def run(self, template: str, fields: dict[str, Any], email_data: EmailData) -> None:
        """Send once."""
        from app.core.runtime import runtime

        # Only classes that are loaded anyway: a row must not choose what gets imported.
        kind = BaseTemplate.known.get(template)
        if kind is None:
            raise LookupError(f"no mail template is called {template!r}: was it renamed or removed?")
        await runtime().mail.send(kind.model_validate(fields), email_data)


def _storable(template: BaseTemplate) -> dict[str, Any]:
    for name, value in template.context().items():
        if isinstance(value, SecretStr | SecretBytes):
            raise TypeError(
                f"{template.template_name()}.{name} is a secret, which no row may hold: push a task that makes it"
            )
    return template.model_dump(mode="json")
