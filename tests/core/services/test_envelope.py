"""Who sees whom, what goes with a mail, and what no header may hold."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.db.jobs import Job
from app.core.runtime import Runtime
from app.core.services.mail import Attachment, EmailData
from app.core.services.mail.envelope import MAX_ATTACHED_BYTES, MAX_TOGETHER, parse_mailbox
from app.core.services.mail.service import MAX_STORED_BYTES
from tests.core.services.templates import Ticket
from tests.utils import CapturedMail

Drain = Callable[[], Awaitable[int]]
Jobs = Callable[[], Awaitable[Sequence[Job]]]

TICKET = Ticket(name="Ada", seat=7)
INJECTED = "Eve\r\nBcc: eve@example.com"
ENCODED = "=?utf-8?q?=0D=0ABcc=3Aeve?="
UNFIT = [INJECTED, "a\nb", "a\rb", "a\x00", "a\x85b", "a\u2028b", ENCODED]


def mail(*recipients: str, **more: object) -> EmailData:
    return EmailData.model_validate({"subject": "Your ticket", "recipients": recipients, **more})


class TestMailbox:
    @pytest.mark.parametrize(
        ("given", "shown"),
        [
            ("ada@example.com", "ada@example.com"),
            ("Ada Lovelace <ada@example.com>", "Ada Lovelace <ada@example.com>"),
            ('"Lovelace, Ada" <ada@example.com>', '"Lovelace, Ada" <ada@example.com>'),
            ("Lovelace, Ada <ada@example.com>", '"Lovelace, Ada" <ada@example.com>'),
            ("Zoë <zoe@exämple.com>", "Zoë <zoe@xn--exmple-cua.com>"),
            ("<ada@example.com>", "ada@example.com"),
            ('Ada "Ace" \\ @ <ada@example.com>', '"Ada \\"Ace\\" \\\\ @" <ada@example.com>'),
        ],
    )
    def test_has_a_display_name_or_none(self, given: str, shown: str) -> None:
        assert str(parse_mailbox(given)) == shown

    @pytest.mark.parametrize(
        "given", ["ada", "", "Ada", "Ada <>", "a@example.com, b@example.com", "A <a@example.com> <b@example.com>"]
    )
    def test_is_one_address(self, given: str) -> None:
        with pytest.raises(ValueError, match="not an e-mail address"):
            parse_mailbox(given)


class TestHeaders:
    @pytest.mark.parametrize("field", ["recipients", "cc", "bcc", "reply_to"])
    @pytest.mark.parametrize("name", UNFIT)
    def test_no_display_name_ends_its_line(self, field: str, name: str) -> None:
        address = f"{name} <ada@example.com>"
        fields = {"recipients": ["bob@example.com"], field: address if field == "reply_to" else [address]}
        with pytest.raises(ValidationError, match="not allowed"):
            EmailData.model_validate({"subject": "Your ticket", **fields})

    @pytest.mark.parametrize("name", [*UNFIT, "../passwd", "a/b", "a\\b", "..", " ", "", "x\u202efdp.exe", "n" * 201])
    def test_no_file_name_ends_its_line_or_is_a_path(self, name: str) -> None:
        with pytest.raises(ValidationError):
            Attachment(name=name, content=b"")

    @pytest.mark.parametrize("kind", ["text/plain\r\nBcc: eve", "text", "multipart/mixed", "message/rfc822", ENCODED])
    def test_a_media_type_is_only_that(self, kind: str) -> None:
        with pytest.raises(ValidationError):
            Attachment(name="a.txt", content=b"", media_type=kind)


class TestNames:
    def test_recipient_is_a_list_of_one(self) -> None:
        data = EmailData(subject="Hi", recipient="Ada <ada@example.com>")
        assert data.recipients == [data.recipient] == ["Ada <ada@example.com>"]
        assert "recipient" not in data.model_dump()  # rows stay as they were

    @pytest.mark.parametrize(
        "given",
        [
            {},
            {"recipients": []},
            {"recipient": "ada@example.com", "recipients": ["bob@example.com"]},
            {"recipient": "ada"},
            {"recipient": "ada@example.com", "to": "bob@example.com"},
            {"recipient": "ada@example.com", "sender": "Eve\r\nBcc: x@example.com <eve@example.com>"},
            {"recipient": "ada@example.com", "from_email": "eve@example.com"},
        ],
    )
    def test_others_are_refused(self, given: dict[str, Any]) -> None:
        with pytest.raises(ValidationError):
            EmailData(subject="Hi", **given)


class TestPeople:
    def test_nobody_is_shown_by_accident(self) -> None:
        for hidden in ({"cc": ["eve@example.com"]}, {"bcc": ["eve@example.com"]}):
            with pytest.raises(ValidationError, match="need together=True"):
                mail("ada@example.com", "bob@example.com", **hidden)

    def test_not_too_many_see_each_other(self) -> None:
        people = [f"p{number}@example.com" for number in range(MAX_TOGETHER)]
        assert len(mail(*people, together=True).people()) == MAX_TOGETHER
        with pytest.raises(ValidationError, match="a mail of its own"):
            mail(*people, bcc=["one.more@example.com"], together=True)
        assert len(mail(*people, "one.more@example.com").people()) == MAX_TOGETHER + 1

    async def test_together_is_one_mail_that_names_all(self, kit: Runtime, captured_mail: CapturedMail) -> None:
        await kit.mail.send(TICKET, mail("Ada <ada@example.com>", "bob@example.com", together=True))
        messages = captured_mail.messages()
        assert [message["Delivered-To"] for message in messages] == ["ada@example.com", "bob@example.com"]
        assert {str(message["To"]) for message in messages} == {"Ada <ada@example.com>, bob@example.com"}
        assert len({message["Message-ID"] for message in messages}) == 1

    async def test_bcc_is_in_no_header(
        self, kit: Runtime, db: AsyncSession, drain: Drain, captured_mail: CapturedMail
    ) -> None:
        data = mail("ada@example.com", cc=["cara@example.com"], bcc=["Eve <eve@example.com>"], reply_to="r@example.com")
        await kit.mail.queue(TICKET, data)
        assert await drain() == 3
        (hidden,) = captured_mail.to("eve@example.com")
        for message in captured_mail.messages():
            assert (str(message["To"]), str(message["Cc"])) == ("ada@example.com", "cara@example.com")
            assert message["Reply-To"] == "r@example.com"
            assert message["Message-ID"] == hidden["Message-ID"]
            del message["Delivered-To"]  # the capture's own, of that copy alone
            assert ("eve" in message.as_string()) is (message is hidden) is False

    async def test_who_is_named_twice_gets_one(
        self, kit: Runtime, db: AsyncSession, drain: Drain, captured_mail: CapturedMail
    ) -> None:
        await kit.mail.queue(TICKET, mail("ada@example.com", cc=["Ada <ada@Example.com>"], bcc=["ada@example.com"]))
        await kit.mail.queue(TICKET, mail("bob@example.com", "bob@example.com"))
        assert await drain() == 2
        assert len(captured_mail.to("ada@example.com")) == len(captured_mail.to("bob@example.com")) == 1

    async def test_an_address_beyond_ascii_among_others(self, kit: Runtime, captured_mail: CapturedMail) -> None:
        await kit.mail.send(TICKET, mail("ada@example.com", cc=["jörg@example.com"], bcc=["zoë@example.com"]))
        (message,) = captured_mail.to("zoë@example.com")
        assert "Cc: jörg@example.com" in message.as_bytes().decode()


class TestAttachments:
    async def test_arrive_as_they_were_queued(
        self, kit: Runtime, db: AsyncSession, drain: Drain, captured_mail: CapturedMail
    ) -> None:
        files = [
            Attachment(name="Prüfung, 1.pdf", content=bytes(range(256))),
            Attachment(name="table", content=b"a;b\r\n", media_type="text/csv"),
            Attachment(name="forwarded.eml", content=b"Subject: x\n\ny"),
            Attachment(name="table.csv.gz", content=b""),
        ]
        await kit.mail.queue(TICKET, mail("ada@example.com", attachments=files))
        await drain()
        (message,) = captured_mail.messages()
        arrived = list(message.iter_attachments())
        assert [(part.get_filename(), part.get_payload(decode=True)) for part in arrived] == [
            (file.name, file.content) for file in files
        ]
        assert [part.get_content_type() for part in arrived] == [
            "application/pdf",
            "text/csv",
            "application/octet-stream",
            "application/octet-stream",
        ]
        body = message.get_body(("plain",))
        assert body is not None
        assert "Dear Ada" in body.get_content()

    def test_text_is_not_guessed_at(self) -> None:
        for content in ("aGVsbG8=", {"base64": "no!"}, {"base64": "aGk=", "more": 1}):
            with pytest.raises(ValidationError):
                Attachment.model_validate({"name": "a.txt", "content": content})

    def test_have_a_bound(self) -> None:
        half = Attachment(name="a.bin", content=bytes(MAX_ATTACHED_BYTES // 2))
        assert mail("ada@example.com", attachments=[half, half]).attached_bytes == MAX_ATTACHED_BYTES
        with pytest.raises(ValidationError, match="mail a link instead"):
            mail("ada@example.com", attachments=[half, half, Attachment(name="b", content=b"1")])

    async def test_fill_no_table(self, kit: Runtime, db: AsyncSession, jobs: Jobs) -> None:
        file = Attachment(name="a.bin", content=bytes(MAX_ATTACHED_BYTES))
        people = [f"p{number}@example.com" for number in range(MAX_STORED_BYTES // MAX_ATTACHED_BYTES + 1)]
        with pytest.raises(ValueError, match="stored once for each of 6 people"):
            await kit.mail.queue(TICKET, mail(*people, attachments=[file]))
        assert await jobs() == []

    def test_their_content_is_not_shown(self) -> None:
        assert "hidden" not in repr(Attachment(name="a.txt", content=b"hidden"))
