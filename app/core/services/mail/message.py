"""A template and an envelope made into a message."""

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

from email_validator import validate_email
from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateNotFound, select_autoescape

from app.core.db.base import utcnow
from app.core.services.mail.interface import BaseTemplate, EmailData
from app.core.services.mail.text import html_to_text
from app.core.services.queue.context import current_job

# Lines up to the limit of RFC 5322 stay whole: a folded link is a broken link.
POLICY = email.policy.SMTP.clone(max_line_length=998)


@dataclass(frozen=True)
class Sender:
    """Who the mails come from, and the domain of their Message-IDs."""

    name: str
    address: str
    domain: str


@dataclass(frozen=True)
class OutgoingMail:
    """A message for one recipient; `key` names it, the same on every attempt of a job."""

    key: str
    recipient: str
    message: EmailMessage


def compose(template: BaseTemplate, data: EmailData, sender: Sender) -> Iterator[OutgoingMail]:
    """A message for each recipient. A mistake in the view raises jinja2's error."""
    html, text = render(template)
    for recipient in data.recipients:
        key, moment = _identity()
        address = deliverable(recipient)
        message = EmailMessage(policy=POLICY if address.isascii() else POLICY.clone(utf8=True))
        message["From"] = Address(display_name=sender.name, addr_spec=sender.address)
        user, _, domain = address.rpartition("@")  # as addr_spec, a user beyond ASCII is refused
        message["To"] = Address(username=user, domain=domain)
        message["Subject"] = data.subject
        message["Date"] = format_datetime(utcnow())
        message["Message-ID"] = f"<{key}.{moment:%Y%m%d%H%M%S}@{sender.domain}>"
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(text)
        message.add_alternative(html, subtype="html")
        yield OutgoingMail(key, address, message)


def render(template: BaseTemplate) -> tuple[str, str]:
    """The HTML part and the text part."""
    environment = _environment(template._get_dir())
    name = template._get_name()
    values = template.context()
    html = environment.get_template(name).render(values)
    try:
        text_view = environment.get_template(str(Path(name).with_suffix(".txt")))
    except TemplateNotFound:
        return html, html_to_text(html)
    return html, text_view.render(values)


def deliverable(recipient: str) -> str:
    """The address as servers take it: the domain in ASCII where the rest is."""
    checked = validate_email(recipient, check_deliverability=False, test_environment=True)
    return checked.ascii_email or checked.normalized


def _identity() -> tuple[str, datetime]:
    """The mail's name and the moment that tells it from one of another database's job of the same id."""
    job = current_job()
    return (job.effect_key(), job.created_at) if job else (uuid4().hex, utcnow())


@lru_cache
def _environment(folder: Path) -> Environment:
    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=select_autoescape(disabled_extensions=("txt",), default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
