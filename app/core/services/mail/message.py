"""Compose messages from a template and an envelope."""

import email.policy
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime
from functools import lru_cache
from pathlib import Path
from uuid import uuid4

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateNotFound, select_autoescape

from app.core.db.base import utcnow
from app.core.services.mail.envelope import EmailCopy, EmailData, one_line, parse_mailbox
from app.core.services.mail.interface import BaseTemplate
from app.core.services.mail.text import html_to_text
from app.core.services.queue.interface import current_job

# Lines up to the limit of RFC 5322 stay whole: a folded link is a broken link.
POLICY = email.policy.SMTP.clone(max_line_length=998)


@dataclass(frozen=True)
class Sender:
    """Name and address of the sender, and the domain of the Message-IDs."""

    name: str
    address: str
    domain: str

    def __post_init__(self) -> None:
        one_line(self.name + self.address + self.domain)


@dataclass(frozen=True)
class OutgoingMail:
    """A message to one recipient; `key` names it, the same on every attempt of a job.

    `sender` and `recipient` are the addresses of the envelope. `utf8`: an address in it is beyond ASCII, which not
    every server takes.
    """

    key: str
    sender: str
    recipient: str
    message: EmailMessage
    utf8: bool = False


def compose(template: BaseTemplate, data: EmailData, sender: Sender) -> Iterator[OutgoingMail]:
    """Compose a message for each recipient. A mistake in the view raises jinja2's error."""
    html, text = render(template)
    shared_id = data.message_id if isinstance(data, EmailCopy) else None
    for person in data.people():
        key, moment = _identity()
        message_id = shared_id or f"<{key}.{moment:%Y%m%d%H%M%S}@{sender.domain}>"
        if data.is_shared:
            shared_id = message_id
        recipient = parse_mailbox(person)
        mailboxes = _mailboxes(data, sender, recipient)
        (author,) = mailboxes["From"]
        utf8 = not all(box.addr_spec.isascii() for boxes in (*mailboxes.values(), [recipient]) for box in boxes)
        message = EmailMessage(policy=POLICY.clone(utf8=utf8))
        for name, boxes in mailboxes.items():
            message[name] = boxes
        message["Subject"] = data.subject
        message["Date"] = format_datetime(utcnow())
        message["Message-ID"] = message_id
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(text)
        message.add_alternative(html, subtype="html")
        for attachment in data.attachments:
            main, sub = attachment.type_and_subtype()
            message.add_attachment(attachment.content, main, sub, filename=attachment.name)
        yield OutgoingMail(key, author.addr_spec, recipient.addr_spec, message, utf8)


def _mailboxes(data: EmailData, sender: Sender, recipient: Address) -> dict[str, list[Address]]:
    """Return the addresses in the headers. Bcc is not among them."""
    found = {
        "From": [parse_mailbox(data.sender) if data.sender else Address(sender.name, addr_spec=sender.address)],
        "To": [*map(parse_mailbox, data.recipients)] if data.is_shared else [recipient],
        "Cc": [*map(parse_mailbox, data.cc)],
        "Reply-To": [parse_mailbox(data.reply_to)] if data.reply_to else [],
    }
    return {name: boxes for name, boxes in found.items() if boxes}


def render(template: BaseTemplate) -> tuple[str, str]:
    """Return the HTML part and the text part."""
    environment = _environment(template._get_dir())
    name = template._get_name()
    values = template.context()
    html = environment.get_template(name).render(values)
    try:
        text_view = environment.get_template(str(Path(name).with_suffix(".txt")))
    except TemplateNotFound:
        return html, html_to_text(html)
    return html, text_view.render(values)


def _identity() -> tuple[str, datetime]:
    """Return the key of file and Message-ID, and a moment: jobs of two databases share ids, but not both."""
    job = current_job()
    return (job.effect_key(), job.created_at) if job else (uuid4().hex, utcnow())


@lru_cache
def _environment(folder: Path | str) -> Environment:
    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=select_autoescape(disabled_extensions=("txt",), default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
