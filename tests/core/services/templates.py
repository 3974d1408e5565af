"""Mail templates of these tests."""

from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, EmailStr, Field, HttpUrl, SecretStr

from app.core.services.mail import BaseTemplate


class Ticket(BaseTemplate):
    """With a text part made from the HTML."""

    name: str
    seat: int
    link: str = "https://theatre.test/tickets#token=abc-DEF_1"


class Plain(BaseTemplate):
    """A class with its own `__init__`; its folder is a text."""

    due: date

    def __init__(self, user_name: str, at: datetime, price: Decimal = Decimal("1.50"), token: Any = None) -> None:
        self.user_name = user_name
        self.at = at
        self.price = price
        self.due = at.date()
        self.greeting = f"Dear {user_name}"
        self._language = "en"
        if token is not None:
            self.token = token

    def _get_dir(self) -> str:
        return str(Path(__file__).parent / "views")

    def _get_name(self) -> str:
        return f"plain_{self._language}.html"


class Both(BaseTemplate):
    """With a text view of its own."""

    name: str


class Faulty(BaseTemplate):
    """Its view asks for a value that is not there."""


class Whisper(BaseTemplate):
    """Holds a secret, here or deeper down."""

    token: SecretStr | None = None
    more: Any = None


class Picky(BaseTemplate):
    """No sample fits it."""

    code: str = Field(pattern="^[0-9]{6}$")


class Row(BaseModel):
    """A part of a template."""

    price: int


class Tree(BaseModel):
    """Contains itself."""

    children: "list[Tree]"


class Motley(BaseTemplate):
    """With fields of many kinds."""

    named: str = Field(examples=["Ann"])
    kept: int = 3
    title: str
    count: int = Field(gt=5)
    address: EmailStr
    link: HttpUrl
    kind: Literal["first", "second"]
    maybe: str | None
    rows: list[Row]
    tree: Tree


class Handmade(BaseTemplate):
    """With a sample of its own."""

    name: str

    @classmethod
    def sample(cls) -> Self:
        return cls(name="by hand")
