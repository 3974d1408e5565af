"""Types for bodies and paths: strict about names and null, limited to values that columns hold."""

import re
from collections.abc import Collection
from datetime import date
from typing import Annotated, ClassVar, TypeAlias

from fastapi import Path
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from app.core.db.column_values import in_utc

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def _written_out(value: object) -> object:
    """Refuse numbers and digits, which pydantic takes for moments and the OpenAPI document does not promise."""
    if isinstance(value, int | float) or (isinstance(value, str) and not _DATE.match(value)):
        raise PydanticCustomError("written_out", "Value must be written as in 2026-01-31 or 2026-01-31T12:00:00Z")
    return value


RowId: TypeAlias = Annotated[int, Path(ge=1, le=2**63 - 1)]
"""The id of a row, in a path."""

Id: TypeAlias = Annotated[int, Field(strict=True, ge=1, le=2**63 - 1)]
"""The id of another row, in a body. The service checks that the row exists."""

Integer: TypeAlias = Annotated[int, Field(strict=True, ge=-(2**31), le=2**31 - 1)]
"""An integer that fits a column; text and booleans are refused."""

Number: TypeAlias = Annotated[float, Field(strict=True, allow_inf_nan=False)]
"""A number that fits a float column of both databases."""

Day: TypeAlias = Annotated[date, BeforeValidator(_written_out)]
"""A date."""

Moment: TypeAlias = Annotated[AwareDatetime, BeforeValidator(_written_out), AfterValidator(in_utc)]
"""A date and time with its zone, in UTC."""


class Body(BaseModel):
    """A JSON body. Refuses unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class PatchBody(Body):
    """A body that changes the fields it contains. Null is refused except for the fields in `nullable`."""

    nullable: ClassVar[Collection[str]] = ()

    @field_validator("*", mode="before")
    @classmethod
    def _not_null(cls, value: object, info: ValidationInfo) -> object:
        if value is None and info.field_name not in cls.nullable:
            raise PydanticCustomError("null_not_allowed", "Value must not be null")
        return value
