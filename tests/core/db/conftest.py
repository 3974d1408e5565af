"""The tables of these tests, in the transaction of `db` or in the copy of `committed`."""

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.db import Database
from tests.core.db.models import ShopModel


@pytest.fixture
async def shop(db: AsyncSession) -> AsyncSession:
    """A session on a shop that is rolled back after the test."""
    connection = await db.connection()
    await connection.run_sync(ShopModel.metadata.create_all)
    return db


@pytest.fixture
async def open_shop(committed: Database) -> Database:
    """A shop where commits are real."""
    async with committed.engine.begin() as connection:
        await connection.run_sync(ShopModel.metadata.create_all)
    return committed
