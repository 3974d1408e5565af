"""What tests of every module use."""

import email.policy
import re
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from email.parser import BytesParser
from pathlib import Path
from typing import Any

import freezegun
import httpx

PASSWORD = "correct horse battery staple"
"""The password of every user a factory makes."""


class CapturedMail:
    """The mails the service captured instead of sending."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def clear(self) -> None:
        """Forget what was captured so far."""
        for path in self.folder.glob("*.eml"):
            path.unlink()

    def messages(self) -> list[EmailMessage]:
        """Every captured mail, oldest first."""
        paths = sorted(self.folder.glob("*.eml"), key=lambda path: path.stat().st_mtime_ns)
        parser = BytesParser(EmailMessage, policy=email.policy.default)
        return [parser.parsebytes(path.read_bytes()) for path in paths]

    def to(self, address: str) -> list[EmailMessage]:
        """Every captured mail to `address`, oldest first."""
        return [message for message in self.messages() if address in str(message["To"])]

    def token_for(self, address: str) -> str:
        """The token of the link in the newest mail to `address`."""
        body = self.to(address)[-1].get_body(("plain",))
        assert body is not None
        found = re.search(r"#token=([\w-]+)", body.get_content())
        assert found is not None, body.get_content()
        return found[1]


async def login_user(client: httpx.AsyncClient, user: Any, password: str = PASSWORD) -> dict[str, str]:
    """Log `user` in, set the client's Authorization header and give back the token answer."""
    answer = await client.post("/api/v1/auth/login", data={"username": user.email, "password": password})
    assert answer.status_code == 200, answer.text
    tokens: dict[str, str] = answer.json()
    client.headers["Authorization"] = f"Bearer {tokens['access_token']}"
    return tokens


def freeze(moment: datetime | timedelta | str) -> AbstractContextManager[Any]:
    """Stop the clock at `moment` (a timedelta counts from now); the event loop keeps real time."""
    if isinstance(moment, timedelta):
        moment = datetime.now(UTC) + moment
    return freezegun.freeze_time(moment, real_asyncio=True)
