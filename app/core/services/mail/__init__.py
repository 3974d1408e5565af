"""Mail: templates rendered to HTML and text, captured as files or sent by SMTP."""

from app.core.services.mail.base import MailTask, SendMail
from app.core.services.mail.capture import CaptureMailService
from app.core.services.mail.interface import BaseTemplate, EmailData, MailServiceInterface
from app.core.services.mail.message import Sender
from app.core.services.mail.smtp import SMTPMailService, SMTPServer

__all__ = [
    "BaseTemplate",
    "CaptureMailService",
    "EmailData",
    "MailServiceInterface",
    "MailTask",
    "SMTPMailService",
    "SMTPServer",
    "SendMail",
    "Sender",
]
