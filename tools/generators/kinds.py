"""The types that fields of a model can have, and what each looks like in every file."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Kind:
    """A type of fields. Texts are Python; `{0}` and `{1}` stand for its sizes.

    Samples are values as JSON has them, and none that a factory gives.
    """

    python: str
    schema: str
    column: str = ""
    imports: Sequence[str] = ()
    schema_imports: Sequence[str] = ()
    factory_imports: Sequence[str] = ()
    factory: str = ""
    samples: Callable[..., tuple[Any, Any]] = lambda *_: (-1, -2)
    invalid: Any = "x"
    sizes: tuple[int, ...] = ()
    indexable: bool = True
    uniquable: bool = True
    listable: bool = True


_INPUTS = "from app.core.api.inputs import"
_TEXT = ("from typing import Annotated", "from pydantic import Field")

KINDS: dict[str, Kind] = {
    "str": Kind(
        "str",
        "Annotated[str, Field(min_length=1, max_length={0})]",
        "String({0})",
        ("from sqlalchemy import String",),
        _TEXT,
        factory="factory.Sequence(lambda n: str(n % 10**{digits}))",
        samples=lambda *_: ("A", "B"),
        invalid="",
        sizes=(200,),
    ),
    "text": Kind(
        "str",
        "Annotated[str, Field(max_length=10_000)]",
        "Text",
        ("from sqlalchemy import Text",),
        _TEXT,
        factory='factory.Sequence(lambda n: f"Text {{n}}")',
        samples=lambda *_: ("Some text", "Another text"),
        invalid=[],
        indexable=False,
        uniquable=False,
    ),
    "int": Kind("int", "Integer", schema_imports=(f"{_INPUTS} Integer",), factory="factory.Sequence(int)"),
    "id": Kind(
        "int",
        "Id",
        "BIGINT",
        ("from app.core.db import BIGINT",),
        (f"{_INPUTS} Id",),
        factory="factory.Sequence(lambda n: n + 1)",
        samples=lambda *_: (1_000_000_001, 1_000_000_002),
        invalid=0,
    ),
    "float": Kind(
        "float",
        "Number",
        "Double",
        ("from sqlalchemy import Double",),
        (f"{_INPUTS} Number",),
        factory="factory.Sequence(lambda n: n + 0.5)",
        samples=lambda *_: (-1.5, -2.5),
    ),
    "decimal": Kind(
        "Decimal",
        "Annotated[Decimal, Field(max_digits={0}, decimal_places={1})]",
        "Numeric({0}, {1})",
        ("from decimal import Decimal", "from sqlalchemy import Numeric"),
        _TEXT,
        ("from decimal import Decimal",),
        "factory.Sequence(lambda n: Decimal(n % 10**{digits}).scaleb(-{1}))",
        lambda _, places: (f"{-(10**-places):.{places}f}", f"{-2 * 10**-places:.{places}f}"),
        sizes=(12, 2),
    ),
    "bool": Kind(
        "bool",
        "StrictBool",
        schema_imports=("from pydantic import StrictBool",),
        factory="False",
        samples=lambda *_: (True, False),
        invalid=1,
        uniquable=False,
    ),
    "date": Kind(
        "date",
        "Day",
        imports=("from datetime import date",),
        schema_imports=(f"{_INPUTS} Day",),
        factory_imports=("from datetime import date, timedelta",),
        factory="factory.Sequence(lambda n: date(2026, 1, 1) + timedelta(days=n))",
        samples=lambda *_: ("2025-01-31", "2025-02-28"),
    ),
    "datetime": Kind(
        "datetime",
        "Moment",
        imports=("from datetime import datetime",),
        schema_imports=(f"{_INPUTS} Moment",),
        factory_imports=("from datetime import UTC, datetime, timedelta",),
        factory="factory.Sequence(lambda n: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=n))",
        samples=lambda *_: ("2025-01-31T12:00:00Z", "2025-02-28T12:00:00Z"),
        invalid="2026-01-31T12:00:00",
    ),
    "uuid": Kind(
        "UUID",
        "UUID",
        imports=("from uuid import UUID",),
        factory_imports=("from uuid import uuid4",),
        factory="factory.LazyFunction(uuid4)",
        samples=lambda *_: ("6fa459ea-ee8a-4ca4-894e-db77e160355e", "16fd2706-8baf-433b-82eb-8c7fada847da"),
    ),
    "json": Kind(
        "dict[str, Any]",
        "dict[str, Any]",
        "JSON(none_as_null=True)",
        ("from typing import Any", "from sqlalchemy import JSON"),
        factory='factory.LazyFunction(lambda: {{"key": "value"}})',
        samples=lambda *_: ({"key": "value"}, {"key": "other"}),
        indexable=False,
        uniquable=False,
        listable=False,
    ),
    "email": Kind(
        "str",
        "EmailStr",
        "String(254)",
        ("from sqlalchemy import String",),
        ("from pydantic import EmailStr",),
        factory='factory.Sequence(lambda n: f"person{{n}}@example.com")',
        samples=lambda *_: ("ann@example.com", "bob@example.com"),
    ),
}
