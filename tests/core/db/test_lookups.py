"""What each comparison finds, and where rows without a value stand: the same on both databases."""

from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.db import FilterParam, ListParams, Lookup, SortOrder, SortParam
from tests.core.db.models import CustomerRepository

customers = CustomerRepository()

NAMES = ("ann", "Bob", "bobby", "100%", "a_b", "a/b", "a\\b", None)


async def stocked(shop: AsyncSession) -> None:
    """A customer of every name, with as many points as there are customers before."""
    rows = [{"email": str(number), "name": name, "points": number} for number, name in enumerate(NAMES)]
    await customers.create_many(db=shop, data=rows)


async def found(shop: AsyncSession, field: str, lookup: Lookup, value: Any) -> list[str | None]:
    """The names that a filter finds, by id."""
    params = ListParams(filters=(FilterParam(field=field, lookup=lookup, value=value),))
    result = await customers.get_list(db=shop, params=params)
    assert result.total == len(result.items)
    return [item.name for item in result.items]


class TestOrder:
    @pytest.mark.parametrize(
        ("lookup", "names"),
        [
            (Lookup.LT, ["ann", "Bob"]),
            (Lookup.LTE, ["ann", "Bob", "bobby"]),
            (Lookup.GT, ["100%", "a_b", "a/b", "a\\b", None]),
            (Lookup.GTE, ["bobby", "100%", "a_b", "a/b", "a\\b", None]),
        ],
    )
    async def test_less_and_greater(self, shop: AsyncSession, lookup: Lookup, names: list[str | None]) -> None:
        await stocked(shop)
        assert await found(shop, "points", lookup, 2) == names

    async def test_two_of_them_are_a_range(self, shop: AsyncSession) -> None:
        await stocked(shop)
        between = (
            FilterParam(field="points", lookup=Lookup.GTE, value=1),
            FilterParam(field="points", lookup=Lookup.LT, value=3),
        )
        result = await customers.get_list(db=shop, params=ListParams(filters=between))
        assert [item.name for item in result.items] == ["Bob", "bobby"]


class TestNot:
    async def test_it_is_the_opposite_so_no_value_counts(self, shop: AsyncSession) -> None:
        await stocked(shop)
        assert await found(shop, "name", Lookup.NE, "ann") == list(NAMES[1:])
        assert await found(shop, "name", Lookup.NE, ("ann", "Bob", "100%")) == ["bobby", *NAMES[4:]]

    async def test_of_a_column_that_always_has_a_value(self, shop: AsyncSession) -> None:
        await stocked(shop)
        assert await found(shop, "points", Lookup.NE, 0) == list(NAMES[1:])
        assert await found(shop, "points", Lookup.NE, (0, 1, 2, 3, 4)) == list(NAMES[5:])


class TestNull:
    async def test_with_and_without_a_value(self, shop: AsyncSession) -> None:
        await stocked(shop)
        assert await found(shop, "name", Lookup.NULL, True) == [None]
        assert await found(shop, "name", Lookup.NULL, False) == list(NAMES[:-1])
        assert await found(shop, "points", Lookup.NULL, True) == []


class TestPart:
    @pytest.mark.parametrize(
        ("part", "names"),
        [
            ("b", ["Bob", "bobby", "a_b", "a/b", "a\\b"]),
            ("BOB", ["Bob", "bobby"]),
            ("N", ["ann"]),
            ("%", ["100%"]),
            ("0%", ["100%"]),
            ("_", ["a_b"]),
            ("/", ["a/b"]),
            ("\\", ["a\\b"]),
            ("a%b", []),
            ("/_", []),
            ("'", []),
            ("B" * 100, []),
            ("%" * 100, []),
        ],
    )
    async def test_wildcards_stand_for_themselves(self, shop: AsyncSession, part: str, names: list[str]) -> None:
        await stocked(shop)
        assert await found(shop, "name", Lookup.ILIKE, part) == names

    async def test_every_ascii_letter_in_either_case(self, shop: AsyncSession) -> None:
        letters = "abcdefghijklmnopqrstuvwxyz"
        await customers.create(db=shop, data={"email": "1", "name": letters})
        await customers.create(db=shop, data={"email": "2", "name": letters.upper()})
        for letter in letters + letters.upper():
            assert len(await found(shop, "name", Lookup.ILIKE, letter)) == 2

    async def test_other_letters_as_they_are_written(self, shop: AsyncSession) -> None:
        await customers.create(db=shop, data={"email": "1", "name": "J\u00fcrgen"})
        assert await found(shop, "name", Lookup.ILIKE, "j\u00fcr") == ["J\u00fcrgen"]


class TestNoValueInAnOrder:
    @pytest.mark.parametrize(("order", "last"), [(SortOrder.ASC, True), (SortOrder.DESC, False)])
    async def test_it_is_the_greatest(self, shop: AsyncSession, order: SortOrder, last: bool) -> None:
        for number, name in enumerate((None, "b", "a", None)):
            await customers.create(db=shop, data={"email": str(number), "name": name})
        params = ListParams(sort=(SortParam(field="name", order=order),))
        names = [item.name for item in (await customers.get_list(db=shop, params=params)).items]
        assert names == (["a", "b", None, None] if last else [None, None, "b", "a"])
