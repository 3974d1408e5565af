"""The mail contract: templates, and the service that sends them."""

import inspect
import json
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, get_type_hints

from pydantic import BaseModel as PydanticModel
from pydantic import TypeAdapter
from pydantic.alias_generators import to_snake
from pydantic.errors import PydanticUserError

from app.core.process import ProcessService, Slot
from app.core.services.mail.envelope import EmailData
from app.core.services.secret_types import is_secret

_ANYTHING: TypeAdapter[Any] = TypeAdapter(Any)


class BaseTemplate(PydanticModel):
    """A mail body: a Jinja2 view and the values it shows.

    The values are the fields of the subclass, or the attributes that its own `__init__` sets:

        class Welcome(BaseTemplate):
            def __init__(self, user_name: str) -> None:
                self.user_name = user_name

    The view is HTML; its text part is a `.txt` view of the same name where there is one, else made from the HTML.
    """

    known: ClassVar[dict[str, type["BaseTemplate"]]] = {}

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        BaseTemplate.known[cls.template_name()] = cls

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Make an instance that an `__init__` of the subclass may fill without calling pydantic's."""
        made = super().__new__(cls)
        for name, empty in (("fields_set", set()), ("extra", None), ("private", None)):
            object.__setattr__(made, f"__pydantic_{name}__", empty)
        return made

    if not TYPE_CHECKING:

        def __setattr__(self, name: str, value: Any) -> None:
            if self.__pydantic_custom_init__:
                object.__setattr__(self, name, value)
            else:
                super().__setattr__(name, value)

    @classmethod
    def template_name(cls) -> str:
        """Return the name of the template in the row of a queued mail: `module:qualname`."""
        return f"{cls.__module__}:{cls.__qualname__}"

    def _get_dir(self) -> Path | str:
        """Return the folder of the view: `views`, beside the file of the template's class."""
        return Path(inspect.getfile(type(self))).parent / "views"

    def _get_name(self) -> str:
        """Return the file name of the view: `password_reset.html` for the class `PasswordReset`."""
        return f"{to_snake(type(self).__name__)}.html"

    def context(self) -> dict[str, Any]:
        """Return the values that the view shows."""
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def _to_row(self) -> dict[str, Any]:
        """Return fields or attributes as JSON, for the job of a queued mail; TypeError if one must not be stored."""
        has_own_init = self.__pydantic_custom_init__
        for name, value in _ANYTHING.dump_python(vars(self) if has_own_init else self.model_dump()).items():
            if is_secret(value):
                where = f"{self.template_name()}.{name}"
                raise TypeError(f"{where} is a secret, which no row may hold: push a task that makes it")
        if has_own_init:
            return {name: self._dump(name, value) for name, value in vars(self).items()}
        return self.model_dump(mode="json")

    @classmethod
    def _from_row(cls, values: Mapping[str, Any]) -> Self:
        """Make the template that was stored. An `__init__` of its own is not called again."""
        if not cls.__pydantic_custom_init__:
            return cls.model_validate(values, by_alias=False, by_name=True)
        made = cls.__new__(cls)
        for name, value in values.items():
            object.__setattr__(made, name, cls._adapter(name).validate_python(value))
        return made

    def _dump(self, name: str, value: Any) -> Any:
        try:
            adapter = self._adapter(name)
            data = value if adapter is _ANYTHING else adapter.dump_python(adapter.validate_python(value), mode="json")
            json.dumps(data, allow_nan=False)
            return data
        except (TypeError, ValueError, NameError, PydanticUserError) as exc:
            where = f"{self.template_name()}.{name}"
            raise TypeError(f"{where} cannot be stored: declare its type in the class, one that JSON can hold") from exc

    @classmethod
    def _adapter(cls, name: str) -> TypeAdapter[Any]:
        """Return the adapter of an attribute's type, which the class declares or the parameter of the same name."""
        field = cls.model_fields.get(name)
        hint = field.annotation if field else get_type_hints(cls.__init__, include_extras=True).get(name)
        return _ANYTHING if hint in (None, Any) else TypeAdapter(hint)


class MailServiceInterface(ProcessService):
    """Sends mail. `EmailData` decides which recipients see each other: by default none."""

    @abstractmethod
    async def send(self, template: BaseTemplate, email_data: EmailData) -> None:
        """Render and deliver now; raises if the server refuses. For tasks: a request should `queue`.

        Every recipient is tried before it raises. A refusal that a retry cannot change is a PermanentFailure.
        """

    @abstractmethod
    async def queue(self, template: BaseTemplate, email_data: EmailData) -> None:
        """Store the mail with the current unit of work; after the commit, a job for each recipient sends it.

        The row holds the template's fields: never pass a secret here, push a task that makes it instead.
        """


current_mail = Slot[MailServiceInterface]()
"""The mail service of this process."""
