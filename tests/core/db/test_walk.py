"""Walking a long list by cursor while others change it: what stays as it is is seen once, in every order."""

import random
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel as Schema
from sqlalchemy import insert, text
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.db import Database, ListParams, SortOrder, SortParam
from app.core.db.keyset import key_type
from tests.core.db.models import Color, Sample, SampleRepository, Word, WordRepository

ROWS = 10_000
COLUMNS = Sample.__mapper__.columns
FIELDS = [name for name, column in COLUMNS.items() if key_type(column) and not name.endswith("ted_at")]
CHANGE_EVERY = 5  # pages
LETTERS = "aAbB zZ_-%9'\"\\\u00e4\u00df\u00e9\u0130\u03c3\U0001f600"

samples, words = SampleRepository(), WordRepository()


class SampleId(Schema):
    """All that a walk needs to know of a row."""

    id: int


def values(chance: random.Random) -> dict[str, Any]:
    """A row as it may come: most values are shared by many rows, and text is in no one alphabet."""
    moment = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(microseconds=chance.randrange(2000))
    return {
        "text": "".join(
            chance.choices("aAbB zZ_-%9\u00e4\u00df\u00e9\u0130\u03c3\U0001f600'\"\\", k=chance.randrange(4))
        ),
        "small": chance.randrange(-5, 5),
        "number": chance.randrange(-(2**31), 2**31),
        "big": chance.choice([-(2**63), 2**63 - 1, 2**53 + 1, 2**53]),
        "flag": chance.random() < 0.5,
        "price": Decimal(chance.randrange(1000)) / 100,
        "ratio": chance.choice([0.1 + 0.2, 1 / 3, -1e300, 5e-324, chance.random()]),
        "born": date(2000, 1, 1) + timedelta(days=chance.randrange(30)),
        "seen_at": moment,
        "key": UUID(int=chance.getrandbits(128)),
        "plain_key": str(UUID(int=chance.getrandbits(128))),
        "color": chance.choice(list(Color)),
        "size": chance.choice(["small", "large"]),
        "extra": {},
        "created_at": moment,
        "updated_at": moment,
    }


@pytest.fixture
async def long_list(open_shop: Database) -> Database:
    """10,000 samples, and the indexes that a keyset wants."""
    chance = random.Random(1)
    async with open_shop.engine.begin() as connection:
        await connection.execute(insert(Sample), [values(chance) for _ in range(ROWS)])
        # SQLite keeps what the column's type does not show.
        await connection.execute(text("UPDATE shop_samples SET price = price + 0.003 WHERE id % 3 = 0"))
        for field in FIELDS:
            await connection.execute(text(f'CREATE INDEX ix_walk_{field} ON shop_samples ("{field}", id)'))
        await connection.execute(text("ANALYZE"))
    return open_shop


class Others:
    """They add, move and remove rows, one in ten of those at the start."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.restless = list(range(10, ROWS + 1, 10))
        self.chance = random.Random(2)

    async def change(self) -> None:
        """One row of each."""
        async with self.database.session_scope() as db:
            new = await samples.create(db=db, data=values(self.chance))
            await samples.update(db=db, model_id=self.chance.choice(self.restless), data=values(self.chance))
            gone = self.restless.pop(self.chance.randrange(len(self.restless)))
            await samples.delete(db=db, model_id=gone)
        self.restless.append(new.id)


async def walk(others: Others, sort: SortParam, start: str = "", *, back: bool = False) -> tuple[list[int], str]:
    """The ids met from `start` on, and the last cursor."""
    ids: list[int] = []
    cursor: str | None = start
    last, pages = start, 0
    while cursor is not None:
        params = ListParams(sort=(sort,), per_page=100, cursor=cursor)
        async with others.database.session_scope(read_only=True) as db:
            page = await samples.get_list(db=db, params=params, into=SampleId)
        assert page.cursors is not None
        found = [item.id for item in page.items]
        ids += reversed(found) if back else found
        last, cursor = cursor, page.cursors.prev if back else page.cursors.next
        pages += 1
        if pages % CHANGE_EVERY == 0:
            await others.change()
    return ids, last


@pytest.mark.parametrize("order", list(SortOrder))
async def test_every_row_that_stays_is_met_once(long_list: Database, order: SortOrder) -> None:
    stays = {row_id for row_id in range(1, ROWS + 1) if row_id % 10}
    others = Others(long_list)
    for field in FIELDS:
        sort = SortParam(field=field, order=order)
        ids, last = await walk(others, sort)
        there = [row_id for row_id in ids if row_id in stays]
        assert sorted(there) == sorted(stays), sort
        if order is SortOrder.ASC:
            ids, _ = await walk(others, sort, last, back=True)
            assert [row_id for row_id in reversed(ids) if row_id in stays] == there, sort


@pytest.mark.parametrize("order", list(SortOrder))
async def test_text_continues_in_the_order_it_is_sorted_in(shop: AsyncSession, order: SortOrder) -> None:
    alphabet = [
        "a",
        "A",
        "\u00e4",
        "\u00c4",
        "b",
        "B",
        "_a",
        "-a",
        " a",
        "a b",
        "ab",
        "\u00e9",
        "e",
        "\u00df",
        "ss",
        "10",
        "9",
    ]
    await words.create_many(db=shop, data=[{"text": text} for text in alphabet * 2])
    sorts = (SortParam(field="text", order=order), SortParam(field="id", order=order))
    expected = (await words.get_list(db=shop, params=ListParams(sort=sorts, per_page=100))).items

    met: list[Word] = []
    cursor: str | None = ""
    while cursor is not None:
        page = await words.get_list(db=shop, params=ListParams(sort=sorts[:1], per_page=1, cursor=cursor))
        met += page.items
        assert page.cursors is not None
        cursor = page.cursors.next

    assert [word.id for word in met] == [word.id for word in expected]
