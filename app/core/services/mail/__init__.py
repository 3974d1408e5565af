"""Mail: templates rendered to HTML and text, captured as files or sent by SMTP."""

from app.core.services.mail.envelope import Attachment, EmailData
from app.core.services.mail.interface import BaseTemplate, MailServiceInterface
from app.core.services.mail.message import OutgoingMail, Sender
from app.core.services.mail.service import CaptureMailService, MailServiceBase, MailTask, SendMail, mail_principal
from app.core.services.mail.smtp import MailServerError, SMTPMailService, SMTPServer

__all__ = [
    "Attachment",
    "BaseTemplate",
    "CaptureMailService",
    "EmailData",
    "MailServerError",
    "MailServiceBase",
    "MailServiceInterface",
    "MailTask",
    "OutgoingMail",
    "SMTPMailService",
    "SMTPServer",
    "SendMail",
    "Sender",
    "mail_principal",
]
