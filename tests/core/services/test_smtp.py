"""Mail through a real SMTP server in this process."""

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import default
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.db.jobs import Job, JobStatus
from app.core.runtime import Runtime
from app.core.services.mail import EmailData, Sender, SMTPMailService, SMTPServer
from tests.core.services.templates import Ticket

Drain = Callable[[], Awaitable[int]]
Jobs = Callable[[], Awaitable[Sequence[Job]]]

SENDER = Sender("Theatre", "box@theatre.test", "theatre.test")
DATA = EmailData(subject="Your ticket", recipients=["ada@example.com"])
TICKET = Ticket(name="Zoë", seat=7)


class Post:
    """What the server received, and how it answers."""

    def __init__(self) -> None:
        self.envelopes: list[Envelope] = []
        self.rcpt = "250 OK"
        self.data = "250 OK"
        self.encrypted: list[bool] = []

    async def handle_RCPT(  # noqa: N802  aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self.rcpt.startswith("250"):
            envelope.rcpt_tos.append(address)
        return self.rcpt

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        if self.data.startswith("250"):
            self.envelopes.append(envelope)
            self.encrypted.append(session.ssl is not None)
        return self.data

    def message(self) -> EmailMessage:
        """The one message."""
        (envelope,) = self.envelopes
        assert isinstance(envelope.content, bytes)
        return BytesParser(EmailMessage, policy=default).parsebytes(envelope.content)


@pytest.fixture
def post() -> Post:
    return Post()


@asynccontextmanager
async def serving(post: Post, **options: Any) -> AsyncIterator[int]:
    """The port of a server in this event loop."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(post, loop=loop, **options), "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.fixture
async def server(post: Post) -> AsyncIterator[SMTPServer]:
    async with serving(post) as port:
        yield SMTPServer("127.0.0.1", port, tls=False, timeout=5)


@pytest.fixture
def through(kit: Runtime, server: SMTPServer) -> Iterator[SMTPMailService]:
    """The application's mail service is this one."""
    original = kit.mail
    kit.mail = service = SMTPMailService(SENDER, kit.queue, server)
    yield service
    kit.mail = original


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost"),
            *("-keyout", str(path), "-out", str(path.with_suffix(".crt"))),
        ],
        check=True,
        capture_output=True,
    )
    path.write_text(path.read_text() + path.with_suffix(".crt").read_text())
    return path


class TestDelivery:
    async def test_arrives(
        self, through: SMTPMailService, db: AsyncSession, drain: Drain, jobs: Jobs, post: Post
    ) -> None:
        await through.queue(TICKET, DATA)
        assert await drain() == 1
        (job,) = await jobs()
        assert job.status == JobStatus.COMPLETED
        assert post.envelopes[0].mail_from == "box@theatre.test"
        assert post.envelopes[0].rcpt_tos == ["ada@example.com"]
        assert post.message()["From"] == "Theatre <box@theatre.test>"
        assert post.message()["Message-ID"].startswith(f"<{job.id}.")
        assert post.message()["Message-ID"].endswith("@theatre.test>")
        body = post.message().get_body(("plain",))
        assert body is not None
        assert "Dear Zoë" in body.get_content()

    async def test_refused_for_now_is_tried_again(
        self, through: SMTPMailService, db: AsyncSession, drain: Drain, jobs: Jobs, post: Post
    ) -> None:
        post.rcpt = "451 grey-listed"
        await through.queue(TICKET, DATA)
        await drain()
        (job,) = await jobs()
        assert job.status == JobStatus.FAILED
        assert job.last_error is not None
        assert "451" in job.last_error

    @pytest.mark.parametrize("step", ["rcpt", "data"])
    async def test_refused_for_good_is_dead_with_the_reason(
        self, through: SMTPMailService, db: AsyncSession, drain: Drain, jobs: Jobs, post: Post, step: str
    ) -> None:
        setattr(post, step, "550 no such user")
        await through.queue(TICKET, DATA)
        await drain()
        (job,) = await jobs()
        assert job.status == JobStatus.DEAD
        assert job.last_error == "PermanentFailure: the mail server refused the mail: 550 no such user"
        assert post.envelopes == []

    async def test_a_server_that_is_down_is_waited_for(
        self, kit: Runtime, db: AsyncSession, drain: Drain, jobs: Jobs, post: Post
    ) -> None:
        async with serving(post) as port:
            pass
        original, kit.mail = kit.mail, SMTPMailService(SENDER, kit.queue, SMTPServer("127.0.0.1", port, tls=False))
        try:
            await kit.mail.queue(TICKET, DATA)
            await drain()
        finally:
            kit.mail = original
        (job,) = await jobs()
        assert job.status == JobStatus.FAILED
        assert job.last_error is not None
        assert job.last_error.startswith("SMTPConnectError")

    async def test_a_silent_server_is_left_after_the_timeout(self, kit: Runtime) -> None:
        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        listening = await asyncio.start_server(silent, "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]
        service = SMTPMailService(SENDER, kit.queue, SMTPServer("127.0.0.1", port, tls=False, timeout=0.2))
        with pytest.raises(TimeoutError):
            await service.send(TICKET, DATA)
        listening.close()
        await listening.wait_closed()


class TestSecurity:
    @pytest.fixture
    def context(self, certificate: Path) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate)
        return context

    @pytest.fixture
    def trusted(self, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate.with_suffix(".crt")))

    async def test_starttls_with_a_log_in(
        self, kit: Runtime, post: Post, context: ssl.SSLContext, trusted: None
    ) -> None:
        def authenticate(server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
            return AuthResult(success=(data.login, data.password) == (b"box", b"office"))

        async with serving(post, tls_context=context, authenticator=authenticate, auth_required=True) as port:
            server = SMTPServer("localhost", port, "box", SecretStr("office"), timeout=5)
            await SMTPMailService(SENDER, kit.queue, server).send(TICKET, DATA)
        assert post.encrypted == [True]

    async def test_a_server_without_starttls_gets_nothing(self, kit: Runtime, server: SMTPServer, post: Post) -> None:
        wanting = SMTPServer(server.host, server.port, tls=True, timeout=5)
        with pytest.raises(Exception, match="STARTTLS"):
            await SMTPMailService(SENDER, kit.queue, wanting).send(TICKET, DATA)
        assert post.envelopes == []

    async def test_a_certificate_nobody_vouches_for_gets_nothing(
        self, kit: Runtime, post: Post, context: ssl.SSLContext
    ) -> None:
        async with serving(post, tls_context=context) as port:
            with pytest.raises(Exception, match="CERTIFICATE_VERIFY_FAILED"):
                await SMTPMailService(SENDER, kit.queue, SMTPServer("localhost", port, timeout=5)).send(TICKET, DATA)
        assert post.envelopes == []
