"""The mail contract."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel as PydanticModel
from pydantic import ConfigDict

from app.core.services.mail.envelope import EmailData
from app.core.services.mail.samples import sample_values


class BaseTemplate(PydanticModel, ABC):
    """A mail body: a Jinja2 view and the values it shows (the fields of the subclass).

    The view is HTML; its text part is a `.txt` view of the same name where there is one, else made from the HTML.
    """

    model_config = ConfigDict(frozen=True)

    known: ClassVar[dict[str, type["BaseTemplate"]]] = {}

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        BaseTemplate.known[cls.template_name()] = cls

    @classmethod
    def template_name(cls) -> str:
        """What a queued mail calls its template: `module:qualname`."""
        return f"{cls.__module__}:{cls.__qualname__}"

    @abstractmethod
    def _get_dir(self) -> Path:
        """The folder of the view, from the template's own `__file__`."""

    @abstractmethod
    def _get_name(self) -> str:
        """The view's file name, for example `welcome.html`."""

    @classmethod
    def sample(cls) -> Self:
        """One to look at, as `kit mail preview` does: fields from their `examples`, defaults or types.

        Override it where that is not enough.
        """
        return cls.model_validate(sample_values(cls.model_json_schema()))

    def context(self) -> dict[str, Any]:
        """What the view sees."""
        return {name: getattr(self, name) for name in type(self).model_fields}


class MailServiceInterface(ABC):
    """Sends mail. Who sees whom is for `EmailData` to say: by default nobody sees anybody."""

    @abstractmethod
    async def send(self, template: BaseTemplate, email_data: EmailData) -> None:
        """Render and hand over now; raises where the server refuses. For tasks: a request should `queue`.

        Every person is tried before it raises. A refusal that trying again cannot change is a PermanentFailure.
        """

    @abstractmethod
    async def queue(self, template: BaseTemplate, email_data: EmailData) -> None:
        """Store the mail with the current unit of work; it is sent after the commit, by a job for each person.

        The row holds the template's fields: never pass a secret here, push a task that makes it instead.
        """

    async def close(self) -> None:  # noqa: B027  most hold nothing
        """Release what the service holds. Called once, when the process ends."""
