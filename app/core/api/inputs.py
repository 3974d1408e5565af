"""What bodies and paths are made of: strict about names and null, within what columns hold."""

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Annotated, ClassVar, TypeAlias

from fastapi import Path
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError


def _in_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError as exc:  # the first hours of year 1, the last of 9999
        raise PydanticCustomError("moment", "Value is outside the calendar") from exc


RowId: TypeAlias = Annotated[int, Path(ge=1, le=2**63 - 1)]
"""The id of a row, in a path."""

Integer: TypeAlias = Annotated[int, Field(ge=-(2**31), le=2**31 - 1)]
"""What a column of integers holds."""

Moment: TypeAlias = Annotated[AwareDatetime, AfterValidator(_in_utc)]
"""A date and time with its zone, in UTC."""


class Body(BaseModel):
    """A JSON body: a field that does not exist is a mistake of the caller."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class PatchBody(Body):
    """A body of which what is sent counts. Only what is in `nullable` can be unset, so null is refused elsewhere."""

    nullable: ClassVar[Collection[str]] = ()

    @field_validator("*", mode="before")
    @classmethod
    def _not_null(cls, value: object, info: ValidationInfo) -> object:
        if value is None and info.field_name not in cls.nullable:
            raise PydanticCustomError("null_not_allowed", "Value must not be null")
        return value
