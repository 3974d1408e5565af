"""Connections to the mail server, kept while mails follow one another."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import aiosmtplib
from pydantic import SecretStr

MAX_MAILS = 100
"""Mails through one connection: many servers end it after as many."""

_PROBE_SECONDS = 5.0


@dataclass(frozen=True)
class SMTPServer:
    """How to reach the server: STARTTLS (`tls`), TLS from the first byte (`ssl`), or in clear. Times are seconds.

    At most `connections` are open at a time; one that nobody uses is closed after `idle`.
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


class MailServerError(ConnectionError):
    """The server cannot be used as the settings say; the text names the one to look at."""


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
        self._leaving: set[asyncio.Task[None]] = set()
        self._closed = False

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[aiosmtplib.SMTP]:
        """A connected client. An answer of the server, even a refusal, leaves it usable; any other error does not."""
        async with self._free:
            connection = await self._take()
            try:
                yield connection.client
            except (aiosmtplib.SMTPResponseException, aiosmtplib.SMTPRecipientsRefused) as exc:
                if getattr(exc, "code", 0) < 0:  # aiosmtplib's word for what was no answer
                    connection.client.close()
                self._keep(connection)
                raise
            except BaseException:
                connection.client.close()
                raise
            self._keep(connection)

    async def close(self) -> None:
        """Take leave of the server; who still sends keeps no connection."""
        self._closed = True
        while self._kept:
            self._leave(self._kept[-1])
        await asyncio.gather(*self._leaving)

    async def _take(self) -> _Connection:
        while self._kept:
            connection = self._kept.pop()
            if connection.expiry:
                connection.expiry.cancel()
            if await _answers(connection.client):
                return connection
            # One that was dropped is replaced before the mail is on its way, so nothing is sent twice. The others
            # hung on the same server: asking each could take as many timeouts.
            while self._kept:
                self._leave(self._kept[-1])
        return _Connection(await connect(self._server))

    def _keep(self, connection: _Connection) -> None:
        if self._closed:
            connection.client.close()
            return
        connection.mails += 1
        self._kept.append(connection)
        if connection.mails >= MAX_MAILS or not connection.client.is_connected:
            self._leave(connection)
        else:
            connection.expiry = asyncio.get_running_loop().call_later(self._server.idle, self._leave, connection)

    def _leave(self, connection: _Connection) -> None:
        self._kept.remove(connection)
        if connection.expiry:
            connection.expiry.cancel()
        task = asyncio.get_running_loop().create_task(_quit(connection.client))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)


async def connect(server: SMTPServer) -> aiosmtplib.SMTP:
    """A client that is connected, encrypted and logged in as the settings say, or an error that names the setting."""
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
    """What the error means for the settings, where it means something."""
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
    # aiosmtplib has one class for these, and tells them apart by their text.
    return next((advice for text, advice in _BY_TEXT.items() if text in str(error)), None)


_BY_TEXT = {
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


async def _answers(client: aiosmtplib.SMTP) -> bool:
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
