"""Mail through a real SMTP server in this process."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.db.jobs import Job, JobStatus
from app.core.runtime import Runtime
from app.core.services.mail import Attachment, EmailData, MailServerError, SMTPMailService, SMTPServer
from app.core.services.queue import PermanentFailure
from tests.core.services.mail_servers import Post, mailing, make_certificate, serving
from tests.core.services.templates import Ticket

Drain = Callable[[], Awaitable[int]]
Due = Callable[[], Awaitable[None]]
Jobs = Callable[[], Awaitable[Sequence[Job]]]

DATA = EmailData(subject="Your ticket", recipients=["ada@example.com"])
THREE = EmailData(subject="Your ticket", recipients=["ada@example.com", "bob@example.com", "cara@example.com"])
TICKET = Ticket(name="Zoë", seat=7)


@pytest.fixture
def post() -> Post:
    return Post()


@pytest.fixture
async def server(post: Post) -> AsyncIterator[SMTPServer]:
    async with serving(post) as port:
        yield SMTPServer("127.0.0.1", port, tls=False, timeout=5)


@pytest.fixture
async def through(kit: Runtime, server: SMTPServer) -> AsyncIterator[SMTPMailService]:
    async with mailing(kit, server) as service:
        yield service


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("tls"), "localhost")


@pytest.fixture
def context(certificate: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture
def trusted(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))


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

    async def test_a_sender_of_its_own_is_that_of_the_envelope_too(self, through: SMTPMailService, post: Post) -> None:
        data = EmailData(subject="Bill", recipient="ada@example.com", sender="Till <till@theatre.test>")
        await through.send(TICKET, data)
        assert post.envelopes[0].mail_from == "till@theatre.test"
        assert post.message()["From"] == "Till <till@theatre.test>"

    async def test_bcc_and_attachments_arrive(
        self, through: SMTPMailService, db: AsyncSession, drain: Drain, post: Post
    ) -> None:
        file = Attachment(name="seat.bin", content=b"\r\n.\r\n\x00\xff")
        data = EmailData(
            subject="Your ticket",
            recipients=["Ada <ada@example.com>"],
            cc=["bob@example.com"],
            bcc=["eve@example.com"],
            attachments=[file],
        )
        await through.queue(TICKET, data)
        assert await drain() == 3
        assert post.recipients() == ["ada@example.com", "bob@example.com", "eve@example.com"]
        assert len({message["Message-ID"] for message in post.messages()}) == 1
        assert not any(b"eve@example.com" in content for content in post.contents())
        for message in post.messages():
            assert (str(message["To"]), str(message["Cc"])) == ("Ada <ada@example.com>", "bob@example.com")
            (attached,) = message.iter_attachments()
            assert attached.get_payload(decode=True) == file.content

    @pytest.mark.parametrize("takes_utf8", [True, False])
    async def test_an_address_beyond_ascii_needs_a_server_that_takes_it(
        self, kit: Runtime, post: Post, takes_utf8: bool
    ) -> None:
        data = EmailData(subject="Your ticket", recipients=["ada@example.com"], cc=["jörg@example.com"])
        async with (
            serving(post, enable_SMTPUTF8=takes_utf8) as port,
            mailing(kit, SMTPServer("127.0.0.1", port, tls=False, timeout=5)) as service,
        ):
            if takes_utf8:
                await service.send(TICKET, data)
                assert post.recipients() == ["ada@example.com", "jörg@example.com"]
                assert all("Cc: jörg@example.com".encode() in content for content in post.contents())
            else:
                with pytest.raises(PermanentFailure, match="SMTPUTF8"):
                    await service.send(TICKET, data)

    async def test_a_server_that_is_down_is_waited_for(
        self, kit: Runtime, db: AsyncSession, drain: Drain, jobs: Jobs, post: Post
    ) -> None:
        async with serving(post) as port:
            pass
        async with mailing(kit, SMTPServer("127.0.0.1", port, tls=False)) as service:
            await service.queue(TICKET, DATA)
            await drain()
        (job,) = await jobs()
        assert job.status == JobStatus.FAILED
        assert job.last_error is not None
        assert job.last_error.startswith("SMTPConnectError")


class TestRefusals:
    @pytest.mark.parametrize("step", ["rcpt", "data"])
    async def test_for_now_is_tried_again(
        self, through: SMTPMailService, db: AsyncSession, drain: Drain, due: Due, jobs: Jobs, post: Post, step: str
    ) -> None:
        setattr(post, step, "451 grey-listed")
        await through.queue(TICKET, DATA)
        await drain()
        (job,) = await jobs()
        assert job.status == JobStatus.FAILED
        assert "451" in (job.last_error or "")
        setattr(post, step, "250 OK")
        await due()
        await drain()
        assert post.recipients() == ["ada@example.com"]

    @pytest.mark.parametrize("step", ["rcpt", "data"])
    async def test_for_good_is_dead_with_the_reason(
        self, through: SMTPMailService, db: AsyncSession, drain: Drain, jobs: Jobs, post: Post, step: str
    ) -> None:
        setattr(post, step, "550-no such\r\n550 user")
        await through.queue(TICKET, DATA)
        await drain()
        (job,) = await jobs()
        assert job.status == JobStatus.DEAD
        assert job.last_error == "PermanentFailure: the mail server refused the mail: 550 no such user"
        assert post.envelopes == []

    async def test_a_missing_log_in_is_no_fault_of_the_mail(
        self, through: SMTPMailService, db: AsyncSession, drain: Drain, jobs: Jobs, post: Post
    ) -> None:
        post.rcpt = "530 5.7.0 Authentication required"
        await through.queue(TICKET, DATA)
        await drain()
        (job,) = await jobs()
        assert job.status == JobStatus.FAILED
        assert "SMTP_USER" in (job.last_error or "")

    @pytest.mark.parametrize("together", [False, True])
    async def test_of_one_repeats_nothing_for_the_others(
        self,
        through: SMTPMailService,
        db: AsyncSession,
        drain: Drain,
        due: Due,
        jobs: Jobs,
        post: Post,
        together: bool,
    ) -> None:
        post.refused["bob@example.com"] = "450 mailbox busy"
        await through.queue(TICKET, THREE.model_copy(update={"together": together}))
        await drain()
        await due()
        await drain()
        assert sorted(post.recipients()) == ["ada@example.com", "cara@example.com"]
        del post.refused["bob@example.com"]
        await due()
        await drain()
        assert sorted(post.recipients()) == THREE.recipients
        assert {job.status for job in await jobs()} == {JobStatus.COMPLETED}
        assert len({message["Message-ID"] for message in post.messages()}) == (1 if together else 3)

    async def test_of_one_keeps_what_is_sent_now_from_nobody_else(self, through: SMTPMailService, post: Post) -> None:
        post.refused["ada@example.com"] = "550 no such user"
        with pytest.raises(PermanentFailure, match="550"):
            await through.send(TICKET, THREE)
        assert post.recipients() == ["bob@example.com", "cara@example.com"]
        post.refused["bob@example.com"] = "450 mailbox busy"
        with pytest.raises(Exception, match="450"):  # the one that trying again can change
            await through.send(TICKET, THREE)


class TestSecurity:
    @staticmethod
    async def refused(kit: Runtime, server: SMTPServer) -> str:
        """What is said about a server that is set wrongly."""
        async with mailing(kit, server) as service:
            with pytest.raises(MailServerError) as caught:
                await service.send(TICKET, DATA)
        return str(caught.value)

    @staticmethod
    def authenticate(server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
        return AuthResult(success=(data.login, data.password) == (b"box", b"office"), handled=False)

    @pytest.mark.usefixtures("trusted")
    async def test_starttls_with_a_log_in(self, kit: Runtime, post: Post, context: ssl.SSLContext) -> None:
        async with serving(post, tls_context=context, authenticator=self.authenticate, auth_required=True) as port:
            server = SMTPServer("localhost", port, "box", SecretStr("office"), timeout=5)
            async with mailing(kit, server) as service:
                await service.send(TICKET, DATA)
                await service.send(TICKET, DATA)
        assert post.encrypted == [True, True]
        assert post.connections == 1

    @pytest.mark.usefixtures("trusted")
    async def test_tls_from_the_first_byte(self, kit: Runtime, post: Post, context: ssl.SSLContext) -> None:
        async with (
            serving(post, implicit_tls=context) as port,
            mailing(kit, SMTPServer("localhost", port, ssl=True, tls=False, timeout=5)) as service,
        ):
            await service.send(TICKET, DATA)
        assert post.recipients() == ["ada@example.com"]

    @pytest.mark.usefixtures("trusted")
    async def test_tls_from_the_first_byte_where_starttls_is_meant(
        self, kit: Runtime, post: Post, context: ssl.SSLContext
    ) -> None:
        async with serving(post, tls_context=context) as port:
            said = await self.refused(kit, SMTPServer("localhost", port, ssl=True, tls=False, timeout=5))
        assert f"localhost:{port}" in said
        assert "set SMTP_SSL=false and SMTP_TLS=true" in said

    async def test_starttls_where_tls_from_the_first_byte_is_meant(
        self, kit: Runtime, post: Post, context: ssl.SSLContext
    ) -> None:
        async with serving(post, implicit_tls=context) as port:
            said = await self.refused(kit, SMTPServer("localhost", port, timeout=1))
        assert "set SMTP_SSL=true" in said

    async def test_a_server_without_starttls_gets_nothing(self, kit: Runtime, server: SMTPServer, post: Post) -> None:
        said = await self.refused(kit, SMTPServer(server.host, server.port, tls=True, timeout=5))
        assert "offers no STARTTLS, as SMTP_TLS=true asks" in said
        assert post.envelopes == []

    async def test_a_certificate_nobody_vouches_for_gets_nothing(
        self, kit: Runtime, post: Post, context: ssl.SSLContext
    ) -> None:
        async with serving(post, tls_context=context) as port:
            starttls = await self.refused(kit, SMTPServer("localhost", port, timeout=5))
        async with serving(post, implicit_tls=context) as port:
            implicit = await self.refused(kit, SMTPServer("localhost", port, ssl=True, tls=False, timeout=5))
        assert "certificate is not trusted" in starttls
        assert "certificate is not trusted" in implicit
        assert post.envelopes == []

    @pytest.mark.usefixtures("trusted")
    async def test_a_certificate_for_another_name_gets_nothing(
        self, kit: Runtime, post: Post, context: ssl.SSLContext
    ) -> None:
        async with serving(post, tls_context=context) as port:
            said = await self.refused(kit, SMTPServer("127.0.0.1", port, timeout=5))
        assert "SMTP_HOST must be the name in it" in said

    @pytest.mark.usefixtures("trusted")
    async def test_a_refused_log_in_names_the_settings_and_not_the_password(
        self, kit: Runtime, post: Post, context: ssl.SSLContext, db: AsyncSession, drain: Drain, jobs: Jobs
    ) -> None:
        async with serving(post, tls_context=context, authenticator=self.authenticate) as port:
            server = SMTPServer("localhost", port, "box", SecretStr("hunter2"), timeout=5)
            async with mailing(kit, server) as service:
                await service.queue(TICKET, DATA)
                await drain()
        (job,) = await jobs()
        assert job.status == JobStatus.FAILED  # settings can be put right
        assert "check SMTP_USER" in (job.last_error or "")
        assert "535" in (job.last_error or "")
        assert "hunter2" not in (job.last_error or "")

    async def test_a_log_in_nobody_offers(self, kit: Runtime, server: SMTPServer) -> None:
        said = await self.refused(kit, SMTPServer(server.host, server.port, "box", SecretStr("x"), tls=False))
        assert "unset SMTP_USER" in said

    async def test_a_silent_server_is_left_after_the_timeout(self, kit: Runtime) -> None:
        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        async with await asyncio.start_server(silent, "127.0.0.1", 0) as listening:
            port = listening.sockets[0].getsockname()[1]
            said = await self.refused(kit, SMTPServer("127.0.0.1", port, tls=False, timeout=1))
        assert "does not greet" in said
