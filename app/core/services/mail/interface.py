"""The mail contract."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from pydantic import BaseModel as PydanticModel
from pydantic import ConfigDict, EmailStr, Field


class BaseTemplate(PydanticModel, ABC):
    """A mail body: a Jinja2 view and the values it shows (the fields of the subclass)."""

    model_config = ConfigDict(frozen=True)

    @abstractmethod
    def _get_dir(self) -> Path:
        """The folder of the view, from the template's own `__file__`."""

    @abstractmethod
    def _get_name(self) -> str:
        """The view's file name, for example `welcome.html`."""

    def context(self) -> dict[str, Any]:
        """What the view sees."""
        return {name: getattr(self, name) for name in type(self).model_fields}


class EmailData(PydanticModel):
    """The envelope. Subjects with line breaks are refused (header injection)."""

    model_config = ConfigDict(frozen=True)

    subject: str = Field(min_length=1, max_length=200, pattern=r"^[^\r\n\x00]+$")
    recipients: list[EmailStr] = Field(min_length=1)


class MailServiceInterface(ABC):
    """Sends mail."""

    @abstractmethod
    async def send(self, template: BaseTemplate, email_data: EmailData) -> None:
        """Render and hand over now; raises where the server refuses. For tasks: a request should `queue`."""

    @abstractmethod
    async def queue(self, template: BaseTemplate, email_data: EmailData) -> None:
        """Store the mail with the current unit of work; it is sent after the commit.

        The row holds the template's fields: never pass a secret here, push a task that makes it instead.
        """
