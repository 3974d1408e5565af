"""What bodies and paths are made of."""

from datetime import UTC, date, datetime
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError
from pydantic.json_schema import SkipJsonSchema

from app.core.api.inputs import Body, Day, Id, Integer, Moment, Number, PatchBody

NO_DATES: list[Any] = [0, 0.5, True, "0", "1e3", "", None, [], "31.1.2026"]


class Change(PatchBody):
    nullable = frozenset({"note"})

    count: Integer | SkipJsonSchema[None] = None
    note: str | None = None


class TestBodies:
    def test_what_does_not_exist_is_refused(self) -> None:
        class Nothing(Body):
            pass

        with pytest.raises(ValidationError):
            Nothing.model_validate({"more": 1})

    def test_null_is_for_what_is_nullable(self) -> None:
        assert Change.model_validate({"note": None}).model_dump(exclude_unset=True) == {"note": None}
        with pytest.raises(ValidationError) as refused:
            Change.model_validate({"count": None})
        assert refused.value.errors()[0]["type"] == "null_not_allowed"

    def test_nothing_sent_is_nothing_changed(self) -> None:
        assert Change.model_validate({}).model_dump(exclude_unset=True) == {}


@pytest.mark.parametrize(
    ("kind", "value", "meant"),
    [
        (Integer, 2**31 - 1, 2**31 - 1),
        (Id, 2**63 - 1, 2**63 - 1),
        (Number, 1, 1.0),
        (Day, "2026-01-31", date(2026, 1, 31)),
        (Moment, "2026-01-31T12:00:00+02:00", datetime(2026, 1, 31, 10, tzinfo=UTC)),
        (Moment, datetime(2026, 1, 31, 10, tzinfo=UTC), datetime(2026, 1, 31, 10, tzinfo=UTC)),
    ],
)
def test_what_is_taken(kind: Any, value: Any, meant: Any) -> None:
    assert TypeAdapter(kind).validate_python(value) == meant


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Integer, 2**31),
        (Integer, -(2**31) - 1),
        *((Id, value) for value in (0, -1, 2**63, "1", True, None)),
        *((kind, value) for kind in (Integer, Number) for value in ("1", True, None)),
        (Number, float("inf")),
        (Number, float("nan")),
        *((kind, value) for kind in (Day, Moment) for value in NO_DATES),
        (Moment, "2026-01-31T12:00:00"),
        (Moment, "2026-01-31"),
        (Moment, "0001-01-01T00:00:00+14:00"),
        (Moment, "9999-12-31T23:59:59-12:00"),
    ],
)
def test_what_is_refused(kind: Any, value: Any) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(kind).validate_python(value)
