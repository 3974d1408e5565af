"""Mail through an SMTP server, over a few connections that are kept while mails follow one another."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Self

import aiosmtplib
from pydantic import SecretStr

from app.core.configs import AppConfig
from app.core.services.log import logger
from app.core.services.mail.message import OutgoingMail, Sender
from app.core.services.mail.service import MailServiceBase
from app.core.services.queue.interface import PermanentFailure, QueueServiceInterface

MAX_MAILS = 100
"""Mails through one connection: many servers end it after as many."""

_PROBE_SECONDS = 5.0

# RFC 4954, and 503, with which some answer MAIL before AUTH: the next try may find other settings.
_LOGIN_CODES = frozenset({503, 530, 534, 535, 538})

# aiosmtplib has one class for these, and tells them apart by their text.
_ADVICE = {
    "server ready message": (
        "it does not greet: if it begins with TLS (usually port 465), set SMTP_SSL=true; else check SMTP_PORT"
    ),
    "STARTTLS extension not supported": (
        "it offers no STARTTLS, as SMTP_TLS=true asks, so it was sent nothing: SMTP_SSL=true is TLS from the first"
        " byte, SMTP_TLS=false sends in clear"
    ),
    "AUTH extension is not supported": (
        "it offers no log-in: unset SMTP_USER, or set SMTP_TLS=true or SMTP_SSL=true if it wants TLS first"
    ),
}


@dataclass(frozen=True)
class SMTPServer:
    """Address and security of the server: STARTTLS (`tls`), TLS from the first byte (`ssl`), or in clear.

    Times are seconds. At most `connections` are open at a time; an unused one is closed after `idle`.
    """

    host: str
    port: int
    user: str | None = None
    password: SecretStr | None = None
    tls: bool = True
    ssl: bool = False
    timeout: float = 20.0
    idle: float = 10.0
    connections: int = 5

    @classmethod
    def of(cls, settings: AppConfig) -> Self:
        """Return the server that the settings name."""
        security = {"tls": settings.smtp_starttls, "ssl": settings.SMTP_SSL}
        return cls(settings.SMTP_HOST or "", settings.SMTP_PORT, settings.SMTP_USER, settings.SMTP_PASSWORD, **security)


class MailServerError(ConnectionError):
    """The server cannot be used with these settings; the text names the one to change."""


@dataclass(eq=False)
class _Connection:
    client: aiosmtplib.SMTP
    mails: int = 0
    expiry: asyncio.TimerHandle | None = field(default=None, repr=False)


class SMTPConnections:
    """A few connections, each for one mail at a time."""

    def __init__(self, server: SMTPServer) -> None:
        self._server = server
        self._free = asyncio.Semaphore(server.connections)
        self._kept: list[_Connection] = []
        self._quitting: set[asyncio.Task[None]] = set()
        self._closed = False

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[aiosmtplib.SMTP]:
        """Yield a connected client. A reply of the server, even a refusal, leaves it usable; another error does not."""
        async with self._free:
            connection = await self._take()
            try:
                yield connection.client
            except (aiosmtplib.SMTPResponseException, aiosmtplib.SMTPRecipientsRefused) as exc:
                if getattr(exc, "code", 0) < 0:  # aiosmtplib's code for what was no reply
                    connection.client.close()
                self._keep(connection)
                raise
            except BaseException:
                connection.client.close()
                raise
            self._keep(connection)

    async def close(self) -> None:
        """Close the kept connections; a mail that is being sent keeps none afterwards."""
        self._closed = True
        while self._kept:
            self._discard(self._kept[-1])
        await asyncio.gather(*self._quitting)

    async def _take(self) -> _Connection:
        while self._kept:
            connection = self._kept.pop()
            if connection.expiry:
                connection.expiry.cancel()
            if await _is_alive(connection.client):
                return connection
            # One that was dropped is replaced before the mail is on its way, so nothing is sent twice. The others
            # hung on the same server: asking each could take as many timeouts.
            while self._kept:
                self._discard(self._kept[-1])
        return _Connection(await connect(self._server))

    def _keep(self, connection: _Connection) -> None:
        if self._closed:
            connection.client.close()
            return
        connection.mails += 1
        self._kept.append(connection)
        if connection.mails >= MAX_MAILS or not connection.client.is_connected:
            self._discard(connection)
        else:
            connection.expiry = asyncio.get_running_loop().call_later(self._server.idle, self._discard, connection)

    def _discard(self, connection: _Connection) -> None:
        self._kept.remove(connection)
        if connection.expiry:
            connection.expiry.cancel()
        task = asyncio.get_running_loop().create_task(_quit(connection.client))
        self._quitting.add(task)
        task.add_done_callback(self._quitting.discard)


async def connect(server: SMTPServer) -> aiosmtplib.SMTP:
    """Connect, encrypt and log in as the settings say; an error names the setting to change."""
    client = aiosmtplib.SMTP(
        hostname=server.host,
        port=server.port,
        username=server.user,
        password=server.password.get_secret_value() if server.password else None,
        use_tls=server.ssl,
        start_tls=server.tls and not server.ssl,
        validate_certs=True,
        timeout=server.timeout,
    )
    try:
        await client.connect()
        if client.is_ehlo_or_helo_needed:
            await client.ehlo()
    except (aiosmtplib.SMTPException, OSError) as exc:
        client.close()
        if advice := _advice(exc, server):
            raise MailServerError(f"mail server {server.host}:{server.port}: {advice}") from exc
        raise
    except BaseException:
        client.close()
        raise
    return client


def _advice(error: Exception, server: SMTPServer) -> str | None:
    """Return what the error says about the settings, if anything."""
    cause = error if isinstance(error, ssl.SSLError) else error.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return (
            f"its certificate is not trusted ({cause.verify_message}): SMTP_HOST must be the name in it,"
            " and SSL_CERT_FILE may name the authority"
        )
    if isinstance(cause, ssl.SSLError) and server.ssl:
        return "it does not begin with TLS, as SMTP_SSL=true asks: for STARTTLS set SMTP_SSL=false and SMTP_TLS=true"
    if isinstance(error, aiosmtplib.SMTPAuthenticationError):
        return f"it refused the log-in ({error.code} {error.message}): check SMTP_USER and its password"
    return next((advice for text, advice in _ADVICE.items() if text in str(error)), None)


async def _is_alive(client: aiosmtplib.SMTP) -> bool:
    try:
        await client.rset(timeout=_PROBE_SECONDS)
    except (aiosmtplib.SMTPException, OSError):
        client.close()
        return False
    return True


async def _quit(client: aiosmtplib.SMTP) -> None:
    with contextlib.suppress(aiosmtplib.SMTPException, OSError):
        await client.quit(timeout=_PROBE_SECONDS)
    client.close()


class SMTPMailService(MailServiceBase):
    """Delivers mails to the server, consecutive ones through one connection. To be closed in the end."""

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
            _raise_if_permanent(exc)
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


def _raise_if_permanent(error: aiosmtplib.SMTPException) -> None:
    """Raise PermanentFailure for a 5xx to this mail. One to the log-in concerns the settings, and is worth a retry."""
    replies = error.recipients if isinstance(error, aiosmtplib.SMTPRecipientsRefused) else [error]
    for reply in replies:
        if isinstance(reply, aiosmtplib.SMTPResponseException) and reply.code // 100 == 5:
            text = f"{reply.code} {' '.join(reply.message.split())}"
            if reply.code in _LOGIN_CODES:
                raise MailServerError(f"the mail server wants a log-in, see SMTP_USER: {text}") from error
            raise PermanentFailure(f"the mail server refused the mail: {text}") from error
