"""Real SMTP servers in this process."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import default
from pathlib import Path
from typing import Any, cast

from aiosmtpd.smtp import SMTP, Envelope, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from app.core.db import utcnow
from app.core.runtime import Runtime
from app.core.services.mail import Sender, SMTPMailService, SMTPServer

SENDER = Sender("Theatre", "box@theatre.test", "theatre.test")


class Post:
    """What the servers received, and how they answer."""

    def __init__(self) -> None:
        self.envelopes: list[Envelope] = []
        self.encrypted: list[bool] = []
        self.connections = 0
        self.open = 0
        self.rcpt = "250 OK"
        self.data = "250 OK"
        self.refused: dict[str, str] = {}
        self.drops_after_data = False
        self.stalls = False
        self.stalled = asyncio.Event()

    async def handle_RCPT(  # noqa: N802  aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        answer = self.refused.get(address, self.rcpt)
        if answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        if self.data.startswith("250"):
            self.envelopes.append(envelope)
            self.encrypted.append(session.ssl is not None)
        if self.stalls:
            self.stalled.set()
            await asyncio.Event().wait()
        if self.drops_after_data:
            self.drops_after_data = False
            _abort(server)
        return self.data

    def recipients(self) -> list[str]:
        """Who got something, in order."""
        return [address for envelope in self.envelopes for address in envelope.rcpt_tos]

    def contents(self) -> list[bytes]:
        """What they got, as it came over the wire."""
        return [envelope.content for envelope in self.envelopes if isinstance(envelope.content, bytes)]

    def messages(self) -> list[EmailMessage]:
        """What they got."""
        parser = BytesParser(EmailMessage, policy=default)
        return [parser.parsebytes(content) for content in self.contents()]

    def message(self) -> EmailMessage:
        """The one message."""
        (message,) = self.messages()
        return message


class _Server(SMTP):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self.transport is None:  # STARTTLS makes it a second time
            self.event_handler.connections += 1
            self.event_handler.open += 1
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self.event_handler.open -= 1
        super().connection_lost(error)


def _abort(server: SMTP) -> None:
    if server.transport:
        cast(asyncio.Transport, server.transport).abort()


@asynccontextmanager
async def serving(
    post: Post, *, port: int = 0, implicit_tls: ssl.SSLContext | None = None, **options: Any
) -> AsyncIterator[int]:
    """The port of a server in this event loop; it drops its connections when it ends."""
    loop = asyncio.get_running_loop()
    made: list[_Server] = []

    def make() -> _Server:
        made.append(_Server(post, loop=loop, **options))
        return made[-1]

    server = await loop.create_server(make, "127.0.0.1", port, ssl=implicit_tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for connection in made:
            _abort(connection)
        await server.wait_closed()


@asynccontextmanager
async def mailing(kit: Runtime, server: SMTPServer) -> AsyncIterator[SMTPMailService]:
    """The application's mail service, for the time being one that talks to `server`."""
    original = kit.mail
    kit.mail = service = SMTPMailService(SENDER, kit.queue, server)
    try:
        yield service
    finally:
        kit.mail = original
        await service.close()


def make_certificate(folder: Path, host: str) -> Path:
    """A key and a certificate that vouches for itself, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(utcnow() - timedelta(days=1))
        .not_valid_after(utcnow() + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / f"{host}.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path
