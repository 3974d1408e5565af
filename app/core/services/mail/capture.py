"""Mail while no SMTP server is set: files to look at."""

import asyncio
import os
import tempfile
from pathlib import Path

from app.core.configs import make_private
from app.core.services.log import logger
from app.core.services.mail.base import MailServiceBase
from app.core.services.mail.message import OutgoingMail, Sender
from app.core.services.queue.interface import QueueServiceInterface


class CaptureMailService(MailServiceBase):
    """Writes each mail to `<job id>.eml` in a folder and says so."""

    def __init__(self, sender: Sender, queue: QueueServiceInterface, folder: Path) -> None:
        super().__init__(sender, queue)
        self._folder = folder

    async def deliver(self, mail: OutgoingMail) -> None:
        path = self._folder / f"{mail.key}.eml"
        # As a server that puts a mail into somebody's mailbox: of a mail to several, each file says whose copy it is.
        mail.message["Delivered-To"] = mail.recipient
        # Plain line ends: who looks for a link in the file must not get a carriage return with it.
        content = mail.message.as_bytes(policy=mail.message.policy.clone(linesep="\n"))
        await asyncio.to_thread(_write, path, content)
        logger.info("mail captured", recipient=mail.recipient, file=str(path))


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all: someone may be reading the folder."""
    make_private(path.parent)
    handle, draft = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    os.replace(draft, path)
