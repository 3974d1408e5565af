"""Mail through an SMTP server."""

import asyncio

import aiosmtplib

from app.core.services.log import logger
from app.core.services.mail.base import MailServiceBase
from app.core.services.mail.connections import MailServerError, SMTPConnections, SMTPServer
from app.core.services.mail.message import OutgoingMail, Sender
from app.core.services.queue.interface import PermanentFailure, QueueServiceInterface

# RFC 4954, and 503, with which some answer MAIL before AUTH: the next try may find other settings.
_ABOUT_THE_LOG_IN = frozenset({503, 530, 534, 535, 538})


class SMTPMailService(MailServiceBase):
    """Hands mails to the server, those that follow one another through one connection. Close it in the end."""

    def __init__(self, sender: Sender, queue: QueueServiceInterface, server: SMTPServer) -> None:
        super().__init__(sender, queue)
        self._server = server
        self._connections = SMTPConnections(server)

    async def close(self) -> None:
        await self._connections.close()

    async def deliver(self, mail: OutgoingMail) -> None:
        try:
            async with self._connections.client() as client:
                await self._transmit(mail, client)
        except (aiosmtplib.SMTPRecipientsRefused, aiosmtplib.SMTPSenderRefused, aiosmtplib.SMTPDataError) as exc:
            _judge(exc)
            raise
        logger.info("mail sent", recipient=mail.recipient, server=self._server.host)

    async def _transmit(self, mail: OutgoingMail, client: aiosmtplib.SMTP) -> None:
        options = []
        policy = mail.message.policy
        if client.supports_extension("8bitmime"):
            options.append("BODY=8BITMIME")
        else:
            policy = policy.clone(cte_type="7bit")
        if mail.utf8:
            if not client.supports_extension("smtputf8"):
                raise PermanentFailure("the mail server takes no address beyond ASCII (SMTPUTF8)")
            options.append("SMTPUTF8")
        content = await asyncio.to_thread(mail.message.as_bytes, policy=policy)  # a third of a second for 10 MiB
        await client.sendmail(mail.sender, [mail.recipient], content, mail_options=options)


def _judge(error: aiosmtplib.SMTPException) -> None:
    """A 5xx to this mail will stay one. A 5xx to the log-in is a matter of settings, and worth another try."""
    answers = error.recipients if isinstance(error, aiosmtplib.SMTPRecipientsRefused) else [error]
    for answer in answers:
        if isinstance(answer, aiosmtplib.SMTPResponseException) and answer.code // 100 == 5:
            if answer.code in _ABOUT_THE_LOG_IN:
                raise MailServerError(f"the mail server wants a log-in, see SMTP_USER: {_said(answer)}") from error
            raise PermanentFailure(f"the mail server refused the mail: {_said(answer)}") from error


def _said(answer: aiosmtplib.SMTPResponseException) -> str:
    return f"{answer.code} {' '.join(answer.message.split())}"
