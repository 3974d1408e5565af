"""Mail templates of these tests."""

from pathlib import Path
from typing import Any

from pydantic import SecretStr

from app.core.services.mail import BaseTemplate


class View(BaseTemplate):
    """Views lie next to this file; the name follows the class."""

    def _get_dir(self) -> Path:
        return Path(__file__).parent / "views"

    def _get_name(self) -> str:
        return f"{type(self).__name__.lower()}.html"


class Ticket(View):
    """With a text part made from the HTML."""

    name: str
    seat: int
    link: str = "https://theatre.test/tickets#token=abc-DEF_1"


class Both(View):
    """With a text view of its own."""

    name: str


class Faulty(View):
    """Its view asks for a value that is not there."""


class Whisper(View):
    """Holds a secret, here or deeper down."""

    token: SecretStr | None = None
    more: Any = None
