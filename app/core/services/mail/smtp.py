"""Mail through an SMTP server."""

from dataclasses import dataclass

import aiosmtplib
from pydantic import SecretStr

from app.core.services.log import logger
from app.core.services.mail.base import MailServiceBase
from app.core.services.mail.message import OutgoingMail, Sender
from app.core.services.queue.context import PermanentFailure
from app.core.services.queue.interface import QueueServiceInterface


@dataclass(frozen=True)
class SMTPServer:
    """How to reach the server: plain, STARTTLS (`tls`) or TLS from the start (`ssl`, which wins)."""

    host: str
    port: int
    user: str | None = None
    password: SecretStr | None = None
    tls: bool = True
    ssl: bool = False
    timeout: float = 20.0


class SMTPMailService(MailServiceBase):
    """Hands each mail to the server in a connection of its own."""

    def __init__(self, sender: Sender, queue: QueueServiceInterface, server: SMTPServer) -> None:
        super().__init__(sender, queue)
        self._server = server

    async def _hand_over(self, mail: OutgoingMail) -> None:
        server = self._server
        try:
            await aiosmtplib.send(
                mail.message,
                sender=self._sender.address,
                recipients=[mail.recipient],
                hostname=server.host,
                port=server.port,
                username=server.user,
                password=server.password.get_secret_value() if server.password else None,
                use_tls=server.ssl,
                start_tls=server.tls and not server.ssl,
                timeout=server.timeout,
            )
        except (aiosmtplib.SMTPRecipientsRefused, aiosmtplib.SMTPSenderRefused, aiosmtplib.SMTPDataError) as exc:
            _judge(exc)
            raise
        logger.info("mail sent", recipient=mail.recipient, server=server.host)


def _judge(error: aiosmtplib.SMTPException) -> None:
    """A 5xx to this mail will stay one. A 5xx to the log-in is a matter of settings, and worth another try."""
    answers = error.recipients if isinstance(error, aiosmtplib.SMTPRecipientsRefused) else [error]
    for answer in answers:
        if isinstance(answer, aiosmtplib.SMTPResponseException) and 500 <= answer.code < 600:
            raise PermanentFailure(f"the mail server refused the mail: {answer.code} {answer.message}") from error
