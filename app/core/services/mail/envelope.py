"""Recipients, subject and attachments of a mail. Text that could end its header's line is refused."""

import base64
import mimetypes
import re
from email.headerregistry import Address
from pathlib import Path
from typing import Annotated, Any, Self

from email_validator import EmailNotValidError, validate_email
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, PlainSerializer, model_validator
from pydantic import BaseModel as PydanticModel

MAX_ATTACHED_BYTES = 10 * 1024 * 1024
"""Maximum size of the attachments of a mail: many servers refuse larger ones once they are encoded."""

MAX_TOGETHER = 100
"""Maximum number of people of one shared mail: every server takes as many (RFC 5321, 4.5.3.1.8)."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_TURNING = re.compile(r"[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_MAILBOX = re.compile(r"(?P<name>[^<>]*)<(?P<address>[^<>]+)>")


def one_line(value: str) -> str:
    """Return `value`; ValueError if a header cannot hold it as it is."""
    if _CONTROL.search(value):
        raise ValueError("line breaks and control characters are not allowed")
    # Python's email package decodes what it is given, a line break inside included.
    if "=?" in value:
        raise ValueError("encoded words (RFC 2047) are not allowed")
    return value


def parse_mailbox(value: str) -> Address:
    """Parse `ann@example.com` or `Ann Lee <ann@example.com>`; the domain becomes ASCII if the rest is."""
    found = _MAILBOX.fullmatch(one_line(value).strip())
    name, address = (found["name"].strip().strip('"'), found["address"]) if found else ("", value)
    try:
        checked = validate_email(address, check_deliverability=False, test_environment=True)
    except EmailNotValidError as exc:
        raise ValueError(f"not an e-mail address: {exc}") from exc
    user, _, domain = (checked.ascii_email or checked.normalized).rpartition("@")
    return Address(name, user, domain)  # as addr_spec, a user beyond ASCII is refused


def _mailbox(value: str) -> str:
    parse_mailbox(value)
    return value


def _file_name(value: str) -> str:
    if "/" in value or "\\" in value or value.strip(". ") == "":
        raise ValueError("a file name must not be a path")
    # A character that turns the direction of writing can show `exe.pdf` where the name ends in `.exe`.
    if _TURNING.search(value):
        raise ValueError("control characters are not allowed")
    return value


def _from_json(value: Any) -> Any:
    """Decode base64. Plain text stays as it is, and is refused: it could be the content, or base64."""
    if isinstance(value, dict) and set(value) == {"base64"}:
        return base64.b64decode(value["base64"], validate=True)
    return value


def _to_json(value: bytes) -> dict[str, str]:
    return {"base64": base64.b64encode(value).decode()}


Mailbox = Annotated[str, Field(max_length=320), AfterValidator(_mailbox)]
"""An address, with a display name or without: `ann@example.com`, `Ann Lee <ann@example.com>`."""


class Attachment(PydanticModel):
    """A file sent with a mail. If no media type is given, it is derived from the name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(max_length=200), AfterValidator(one_line), AfterValidator(_file_name)]
    content: Annotated[
        bytes,
        Field(strict=True),
        BeforeValidator(_from_json),
        PlainSerializer(_to_json, when_used="json"),
    ] = Field(repr=False)
    media_type: str | None = Field(
        default=None, max_length=127, pattern=r"^(application|audio|font|image|model|text|video)/[\w.+-]+$"
    )

    def type_and_subtype(self) -> tuple[str, str]:
        """Return the two halves of the media type."""
        # The suffix alone: the whole would be read as a URL, and `.tar.gz` as what is inside.
        guessed = self.media_type or mimetypes.guess_type(f"file{Path(self.name).suffix}")[0] or ""
        main, _, sub = guessed.partition("/")
        # A message or a multipart would be taken apart by readers; as a file it is only handed over.
        return (main, sub) if sub and main not in ("message", "multipart") else ("application", "octet-stream")


class EmailData(PydanticModel):
    """Subject, people and files of a mail.

    Each of `recipients` gets a mail of its own and sees no other. `together=True` makes it one mail that names
    them all; `cc` and `bcc` do so too, and must say it where there are several recipients. Who is in `bcc` gets
    the mail without being named in it. `recipient=` is a list of one. `sender` is who it is from, where that is not
    `EMAIL_SENDER_ADDRESS`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    subject: Annotated[str, Field(min_length=1, max_length=200), AfterValidator(one_line)]
    recipient: Mailbox | None = Field(default=None, exclude=True)
    recipients: list[Mailbox] = Field(default=[], min_length=1, validate_default=True)
    sender: Mailbox | None = None
    cc: list[Mailbox] = []
    bcc: list[Mailbox] = []
    reply_to: Mailbox | None = None
    attachments: list[Attachment] = []
    together: bool = False

    @model_validator(mode="before")
    @classmethod
    def _recipient_is_a_list_of_one(cls, data: Any) -> Any:
        if not isinstance(data, dict) or (one := data.get("recipient")) is None:
            return data
        if data.get("recipients") not in (None, [one]):
            raise ValueError("give either recipient or recipients")
        return {**data, "recipients": [one]}

    @model_validator(mode="after")
    def _can_be_sent(self) -> Self:
        if (self.cc or self.bcc) and len(self.recipients) > 1 and not self.together:
            raise ValueError("cc and bcc with several recipients need together=True: all of them will see each other")
        if self.is_shared and len(self.recipients) + len(self.cc) + len(self.bcc) > MAX_TOGETHER:
            raise ValueError(f"one mail may have {MAX_TOGETHER} people: give each a mail of its own")
        if self.attached_bytes > MAX_ATTACHED_BYTES:
            raise ValueError(
                f"the attachments have {self.attached_bytes} bytes, at most {MAX_ATTACHED_BYTES} are allowed:"
                " mail a link instead"
            )
        return self

    @property
    def attached_bytes(self) -> int:
        """Size of all attachments, before they are encoded."""
        return sum(len(attachment.content) for attachment in self.attachments)

    @property
    def is_shared(self) -> bool:
        """True if several people get the same mail."""
        return self.together or bool(self.cc or self.bcc)

    def people(self) -> list[str]:
        """Return everybody who gets the mail, each once however often they are named."""
        everybody = [*self.recipients, *self.cc, *self.bcc]
        return list({parse_mailbox(person).addr_spec: person for person in reversed(everybody)}.values())[::-1]


class EmailCopy(EmailData):
    """One recipient's copy of a shared mail, as a job of the queue holds it."""

    copy_for: Mailbox
    message_id: Annotated[str, AfterValidator(one_line)]

    def people(self) -> list[str]:
        return [self.copy_for]
