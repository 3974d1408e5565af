"""Mail: templates rendered to HTML and text, captured as files or sent by SMTP."""

from app.core.services.mail.base import MailTask, SendMail
from app.core.services.mail.capture import CaptureMailService
from app.core.services.mail.connections import MailServerError, SMTPServer
from app.core.services.mail.envelope import Attachment, EmailData
from app.core.services.mail.interface import BaseTemplate, MailServiceInterface
from app.core.services.mail.message import Sender
from app.core.services.mail.smtp import SMTPMailService

__all__ = [
    "Attachment",
    "BaseTemplate",
    "CaptureMailService",
    "EmailData",
    "MailServerError",
    "MailServiceInterface",
    "MailTask",
    "SMTPMailService",
    "SMTPServer",
    "SendMail",
    "Sender",
]
