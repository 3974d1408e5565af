"""Mail: composed, queued, captured."""

import asyncio
import shutil
import stat
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.message import EmailMessage

import pytest
from jinja2 import UndefinedError
from pydantic import SecretStr, ValidationError
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.db.base import utcnow
from app.core.db.jobs import Job, JobStatus
from app.core.db.session import Database
from app.core.runtime import Runtime
from app.core.services.mail import CaptureMailService, EmailData, Sender
from app.core.services.mail.text import html_to_text
from tests.core.services import stage
from tests.core.services.conftest import rolled_back
from tests.core.services.stage import Stage
from tests.core.services.templates import Both, Faulty, Plain, Ticket, Whisper
from tests.utils import CapturedMail

Drain = Callable[[], Awaitable[int]]
Due = Callable[[], Awaitable[None]]
Jobs = Callable[[], Awaitable[Sequence[Job]]]

ENCODED = "=?utf-8?q?=0D=0ABcc=3Aeve?="
LINK = "https://theatre.test/tickets#token=abc-DEF_1"


def to(*recipients: str, subject: str = "Your ticket") -> EmailData:
    return EmailData(subject=subject, recipients=list(recipients))


def part(message: EmailMessage, kind: str) -> str:
    body = message.get_body((kind,))
    assert body is not None
    content = body.get_content()
    assert isinstance(content, str)
    return content


def _with_secrets(value: object) -> object:
    if isinstance(value, dict):
        return {key: _with_secrets(item) for key, item in value.items()}
    return [_with_secrets(item) for item in value] if isinstance(value, list) else SecretStr(str(value))


class TestSend:
    async def test_has_an_html_part_and_a_text_part(self, kit: Runtime, captured_mail: CapturedMail) -> None:
        await kit.mail.send(template=Ticket(name="Ada", seat=7), email_data=to("ada@example.com"))
        (message,) = captured_mail.to("ada@example.com")
        assert message["Subject"] == "Your ticket"
        assert message["From"] == "FastAPI Modulith <noreply@localhost>"
        assert message["Auto-Submitted"] == "auto-generated"
        assert message["Message-ID"].endswith("@localhost>")
        assert message["Date"] is not None
        assert "<b>7</b>" in part(message, "html")
        assert part(message, "plain") == f"Dear Ada\n\nYour seat is 7.\n\nShow the ticket ({LINK})\n"

    async def test_a_text_view_beside_the_html_is_used_and_not_escaped(
        self, kit: Runtime, captured_mail: CapturedMail
    ) -> None:
        await kit.mail.send(Both(name="<Ada & Co>"), to("ada@example.com"))
        (message,) = captured_mail.messages()
        assert part(message, "plain") == "Hello <Ada & Co>, in plain words\n"
        assert part(message, "html") == "<p>Hello <b>&lt;Ada &amp; Co&gt;</b></p>\n"

    async def test_values_cannot_become_markup(self, kit: Runtime, captured_mail: CapturedMail) -> None:
        await kit.mail.send(Ticket(name="<script>alert(1)</script>", seat=1), to("ada@example.com"))
        (message,) = captured_mail.messages()
        assert "<script>" not in part(message, "html")
        assert "Dear <script>alert(1)</script>" in part(message, "plain")

    async def test_a_value_the_view_misses_is_an_error(self, kit: Runtime, captured_mail: CapturedMail) -> None:
        with pytest.raises(UndefinedError, match="nobody_gave_this"):
            await kit.mail.send(Faulty(), to("ada@example.com"))
        assert captured_mail.messages() == []

    async def test_every_recipient_gets_a_mail_and_sees_no_other(
        self, kit: Runtime, captured_mail: CapturedMail
    ) -> None:
        await kit.mail.send(Ticket(name="all", seat=1), to("ada@example.com", "bob@example.com"))
        assert [str(message["To"]) for message in captured_mail.messages()] == ["ada@example.com", "bob@example.com"]
        assert len({message["Message-ID"] for message in captured_mail.messages()}) == 2

    async def test_a_link_stays_whole_in_the_file(self, kit: Runtime, captured_mail: CapturedMail) -> None:
        link = "https://theatre.test/" + "long/" * 60 + "#token=abc-DEF_1"
        await kit.mail.send(Ticket(name="Zoë", seat=1, link=link), to("ada@example.com"))
        (path,) = captured_mail.folder.glob("*.eml")
        assert f"Show the ticket ({link})" in path.read_text()

    async def test_addresses_beyond_ascii(self, kit: Runtime, captured_mail: CapturedMail) -> None:
        await kit.mail.send(Ticket(name="a", seat=1), to("ada@exämple.com", "jörg@example.com"))
        assert captured_mail.to("ada@xn--exmple-cua.com")
        (path,) = (path for path in captured_mail.folder.glob("*.eml") if "To: jörg@example.com" in path.read_text())
        assert path.exists()


class TestOwnInit:
    AT = datetime(2030, 1, 31, 9, 30, tzinfo=UTC)

    async def test_attributes_are_the_context(self, kit: Runtime, captured_mail: CapturedMail) -> None:
        await kit.mail.send(template=Plain("<Ada>", self.AT), email_data=to("ada@example.com"))
        (message,) = captured_mail.messages()
        assert part(message, "html") == "<p>Dear &lt;Ada&gt;: 09:30, 2030, 3.00</p>\n"

    async def test_a_queued_one_is_as_it_was(
        self, kit: Runtime, db: AsyncSession, drain: Drain, jobs: Jobs, captured_mail: CapturedMail
    ) -> None:
        await kit.mail.queue(template=Plain("Ada", self.AT, Decimal(7)), email_data=to("ada@example.com"))
        (job,) = await jobs()
        assert job.payload["fields"] == {
            "user_name": "Ada",
            "at": "2030-01-31T09:30:00Z",
            "price": "7",
            "due": "2030-01-31",
            "greeting": "Dear Ada",
            "_language": "en",
        }
        assert await drain() == 1
        (message,) = captured_mail.messages()
        assert part(message, "html") == "<p>Dear Ada: 09:30, 2030, 14</p>\n"
        assert Plain._from_row(job.payload["fields"]) == Plain("Ada", self.AT, Decimal(7))

    @pytest.mark.parametrize(
        ("token", "said"),
        [
            (SecretStr("hidden"), "token is a secret, which no row may hold"),
            ([{"a": SecretStr("hidden")}], "token is a secret, which no row may hold"),
            (Whisper(token=SecretStr("hidden")), "token is a secret, which no row may hold"),
        ],
    )
    async def test_a_secret_is_refused(
        self, kit: Runtime, db: AsyncSession, jobs: Jobs, token: object, said: str
    ) -> None:
        with pytest.raises(TypeError, match=said) as refused:
            await kit.mail.queue(Plain("Ada", self.AT, token=token), to("ada@example.com"))
        assert "hidden" not in str(refused.value)
        assert await jobs() == []

    async def test_what_json_cannot_hold_is_refused_and_sent_directly(
        self, kit: Runtime, db: AsyncSession, jobs: Jobs, captured_mail: CapturedMail
    ) -> None:
        template = Plain("Ada", self.AT)
        template.later = self.AT + timedelta(days=1)  # type: ignore[attr-defined]  # of no declared type
        with pytest.raises(TypeError, match=r"Plain\.later cannot be stored: declare its type"):
            await kit.mail.queue(template, to("ada@example.com"))
        assert await jobs() == []
        await kit.mail.send(template, to("ada@example.com"))
        assert len(captured_mail.messages()) == 1


class TestHeaders:
    async def test_a_mail_may_have_a_sender_of_its_own(
        self, kit: Runtime, db: AsyncSession, drain: Drain, captured_mail: CapturedMail
    ) -> None:
        data = EmailData(subject="Bill", recipient="ada@example.com", sender="Billing <billing@example.com>")
        await kit.mail.queue(Ticket(name="Ada", seat=7), data)
        await drain()
        (message,) = captured_mail.to("ada@example.com")
        assert message["From"] == "Billing <billing@example.com>"

    @pytest.mark.parametrize("subject", ["a\r\nBcc: eve@example.com", "a\nb", "a\rb", "a\x00", "", ENCODED])
    def test_a_subject_that_would_end_its_line_is_refused(self, subject: str) -> None:
        with pytest.raises(ValidationError):
            to("ada@example.com", subject=subject)

    @pytest.mark.parametrize(
        "address", ["ada@example.com\r\nBcc: eve@example.com", "ada", "a b@example.com", f"{ENCODED}@example.com"]
    )
    def test_a_recipient_that_is_no_address_is_refused(self, address: str) -> None:
        with pytest.raises(ValidationError):
            to(address)

    def test_a_mail_needs_a_recipient(self) -> None:
        with pytest.raises(ValidationError):
            to()

    @pytest.mark.parametrize("name", ["Theatre\r\nBcc: eve@example.com", ENCODED])
    def test_a_sender_that_would_end_its_line_is_refused(self, name: str) -> None:
        with pytest.raises(ValueError, match="not allowed"):
            Sender(name, "noreply@localhost", "localhost")

    async def test_a_sender_name_may_be_anything_else(self, kit: Runtime, captured_mail: CapturedMail) -> None:
        sender = Sender('Käse, "fein" <x>', "noreply@localhost", "localhost")
        await CaptureMailService(sender, kit.queue, captured_mail.folder).send(
            Ticket(name="a", seat=1), to("ada@example.com")
        )
        (address,) = captured_mail.messages()[0]["From"].addresses
        assert (address.display_name, address.addr_spec) == ('Käse, "fein" <x>', "noreply@localhost")


class TestQueue:
    async def test_is_sent_after_the_commit_under_the_jobs_name(
        self, kit: Runtime, committed: Database, drain: Drain, jobs: Jobs, captured_mail: CapturedMail
    ) -> None:
        async with kit.database.session_scope():
            await kit.mail.queue(template=Ticket(name="Ada", seat=7), email_data=to("ada@example.com"))
            assert captured_mail.messages() == []
        assert await drain() == 1
        (job,) = await jobs()
        assert (job.task, job.status) == ("core.mail.send", JobStatus.COMPLETED)
        assert [path.name for path in captured_mail.folder.glob("*.eml")] == [f"{job.id}.eml"]
        assert captured_mail.messages()[0]["Message-ID"].startswith(f"<{job.id}.")

    async def test_what_a_process_of_the_version_before_stores_is_sent_beside_a_forks_own_mail_send(
        self, kit: Runtime, db: AsyncSession, drain: Drain, captured_mail: CapturedMail, scene: Stage
    ) -> None:
        old = {
            "template": Ticket.template_name(),
            "fields": {"name": "Ada", "seat": 7, "link": LINK},
            "email_data": {
                "subject": "Old",
                "recipients": ["ada@example.com"],
                "cc": [],
                "bcc": [],
                "reply_to": None,
                "attachments": [],
                "together": False,
            },
        }
        async with kit.database.session_scope() as session:
            session.add(Job(task="mail.send", payload=old, max_attempts=30, available_at=utcnow()))
        await kit.queue.push(stage.SendMail, {"recipient": "bob@example.com", "text": "Hello"})
        assert await drain() == 2
        assert scene.values("own mail") == [("bob@example.com", "Hello")]
        assert [message["Subject"] for message in captured_mail.messages()] == ["Old"]

    async def test_data_that_fits_neither_of_two_tasks_of_a_name_is_told_by_the_first(
        self, kit: Runtime, db: AsyncSession, drain: Drain, jobs: Jobs
    ) -> None:
        async with kit.database.session_scope() as session:
            session.add(Job(task="mail.send", payload={"nobody": 1}, max_attempts=30, available_at=utcnow()))
        await drain()
        (job,) = await jobs()
        assert job.last_error is not None
        assert job.last_error.startswith("ValidationError: recipient: Field required; text: Field required")

    async def test_is_not_sent_when_the_unit_rolls_back(
        self, kit: Runtime, db: AsyncSession, drain: Drain, captured_mail: CapturedMail
    ) -> None:
        async with rolled_back(kit.database.session_scope()):
            await kit.mail.queue(Ticket(name="Ada", seat=7), to("ada@example.com"))
        assert await drain() == 0
        assert captured_mail.messages() == []

    async def test_is_a_job_for_each_recipient(
        self, kit: Runtime, db: AsyncSession, drain: Drain, jobs: Jobs, captured_mail: CapturedMail
    ) -> None:
        await kit.mail.queue(Ticket(name="all", seat=1), to("ada@example.com", "bob@example.com"))
        assert [job.payload["email_data"]["recipients"] for job in await jobs()] == [
            ["ada@example.com"],
            ["bob@example.com"],
        ]
        assert await drain() == 2
        assert len(captured_mail.to("ada@example.com")) == len(captured_mail.to("bob@example.com")) == 1

    async def test_a_second_attempt_is_the_same_mail(
        self, kit: Runtime, db: AsyncSession, drain: Drain, captured_mail: CapturedMail
    ) -> None:
        await kit.mail.queue(Ticket(name="Ada", seat=7), to("ada@example.com"))
        await drain()
        (before,) = captured_mail.messages()
        async with kit.database.session_scope() as session:
            await session.execute(update(Job).values(status=JobStatus.FAILED, finished_at=None))
        await drain()
        (after,) = captured_mail.messages()
        assert after["Message-ID"] == before["Message-ID"]

    @pytest.mark.parametrize(
        "fields", [{"token": "hidden"}, {"more": ["hidden"]}, {"more": {"deep": [{"er": "hidden"}]}}]
    )
    async def test_a_secret_is_refused(
        self, kit: Runtime, db: AsyncSession, jobs: Jobs, fields: dict[str, object]
    ) -> None:
        whisper = Whisper.model_validate(_with_secrets(fields))
        with pytest.raises(TypeError, match=f"{next(iter(fields))} is a secret"):
            await kit.mail.queue(whisper, to("ada@example.com"))
        assert await jobs() == []

    async def test_a_row_cannot_name_any_class(
        self, kit: Runtime, db: AsyncSession, drain: Drain, jobs: Jobs, captured_mail: CapturedMail
    ) -> None:
        await kit.mail.queue(Ticket(name="Ada", seat=7), to("ada@example.com"))
        async with kit.database.session_scope() as session:
            payload = (await jobs())[0].payload | {"template": "subprocess:Popen"}
            await session.execute(update(Job).values(payload=payload))
        await drain()
        (job,) = await jobs()
        assert (
            job.last_error == "LookupError: no mail template is called 'subprocess:Popen': was it renamed or removed?"
        )
        assert captured_mail.messages() == []


class TestCapture:
    async def test_readers_see_whole_files_that_are_their_owners(
        self, kit: Runtime, captured_mail: CapturedMail
    ) -> None:
        sending = asyncio.gather(
            *(kit.mail.send(Ticket(name="Ada" * 20_000, seat=seat), to("ada@example.com")) for seat in range(20))
        )
        seen: set[int] = set()
        while not sending.done():
            seen.add(len(captured_mail.messages()))
            assert all("Show the ticket" in part(message, "plain") for message in captured_mail.messages())
            await asyncio.sleep(0)
        await sending
        assert len(captured_mail.to("ada@example.com")) == 20
        assert len(seen) > 1
        assert {stat.S_IMODE(path.stat().st_mode) for path in captured_mail.folder.glob("*.eml")} == {0o600}
        assert [path for path in captured_mail.folder.iterdir() if path.suffix != ".eml"] == []

    async def test_a_folder_that_somebody_tidied_away_is_made_again(
        self, kit: Runtime, captured_mail: CapturedMail
    ) -> None:
        shutil.rmtree(captured_mail.folder)
        await kit.mail.send(Ticket(name="Ada", seat=7), to("ada@example.com"))
        assert len(captured_mail.to("ada@example.com")) == 1


class TestText:
    @pytest.mark.parametrize(
        ("html", "text"),
        [
            ("<p>one</p><p>two</p>", "one\n\ntwo"),
            ("<div>one</div><div>two</div>", "one\ntwo"),
            ("one<br>two<br/>three", "one\ntwo\nthree"),
            ("  much \n  white\tspace ", "much white space"),
            ("<ul><li>one</li><li><p>two</p></li></ul>", "- one\n- two"),
            ("<h1>Title</h1>text", "Title\n\ntext"),
            ("<a href='https://a.test'>go</a>", "go (https://a.test)"),
            ("<a href='https://a.test'>https://a.test</a>", "https://a.test"),
            ("<a href='https://a.test'><b>go</b> on</a>.", "go on (https://a.test)."),
            ("<a href='https://a.test'><img src=x alt=''></a>", "https://a.test"),
            ("<a href='mailto:a@b.test'>a@b.test</a>", "a@b.test"),
            ("<a href='#top'>up</a> <a>none</a>", "up none"),
            (
                "<a href='https://a.test'>one<a href='https://b.test'>two</a>",
                "one (https://a.test)two (https://b.test)",
            ),
            ("<img src=x alt='A seat'>", "A seat"),
            ("<table><tr><td>a</td><td>b</td></tr><tr><td>c</td></tr></table>", "a b\nc"),
            ("<style>p{}</style><script>x</script>seen", "seen"),
            ("1 &lt; 2 &amp; 3&nbsp;&euro;", "1 < 2 & 3 €"),
            ("a<hr>b", "a\n---\nb"),
            ("</p></a></style>stray", "stray"),
            ("<head><title>a</title><img src=x alt=b><a href='https://a.test'>c</a><p>d</p></head>seen", "seen"),
            ("<head><meta charset=utf-8><title>a</title><body>no end of the head", "no end of the head"),
            ("<template><p>a</p><img alt=b></template><p>seen</p>", "seen"),
            ("one<br><br>two<p>three</p>\n\n<p></p><p>four</p>", "one\n\ntwo\n\nthree\n\nfour"),
        ],
    )
    def test_html_as_a_reader_sees_it(self, html: str, text: str) -> None:
        assert html_to_text(html) == text + "\n"
