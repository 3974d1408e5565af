"""Units of work: what commits, what waits for it, and what a read may not do."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from contextvars import Context

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, InvalidRequestError

from app.core.db import Database, current_session, on_commit, session_scope, store_with
from tests.core.db.models import Customer, CustomerRepository

customers = CustomerRepository()


@pytest.fixture
async def ann(open_shop: Database) -> Customer:
    """A committed customer."""
    async with open_shop.session_scope() as db:
        return await customers.create(db=db, data={"email": "ann@example.com"})


async def names(database: Database) -> list[str]:
    """The addresses that are committed."""
    async with database.session_scope(read_only=True) as db:
        return [str(email) for email in await db.scalars(text("SELECT email FROM shop_customers ORDER BY id"))]


class TestUnit:
    async def test_it_commits_when_it_ends_well(self, open_shop: Database) -> None:
        async with session_scope() as db:
            db.add(Customer(email="ann"))
        assert await names(open_shop) == ["ann"]

    async def test_it_rolls_back_when_it_does_not(self, open_shop: Database) -> None:
        with suppress(LookupError):
            async with open_shop.session_scope() as db:
                await customers.create(db=db, data={"email": "ann"})
                raise LookupError
        assert await names(open_shop) == []

    async def test_it_rolls_back_when_it_is_cancelled(self, open_shop: Database) -> None:
        started = asyncio.Event()

        async def work() -> None:
            async with open_shop.session_scope() as db:
                await customers.create(db=db, data={"email": "ann"})
                started.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(work())
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await names(open_shop) == []

    async def test_it_is_the_current_one_while_it_lasts(self, open_shop: Database) -> None:
        assert current_session() is None
        async with open_shop.session_scope() as outer:
            assert current_session() is outer
            await outer.commit()
            async with open_shop.session_scope() as inner:
                assert current_session() is inner
            assert current_session() is outer
        assert current_session() is None

    async def test_it_is_no_longer_the_current_one_of_a_task_that_outlives_it(self, open_shop: Database) -> None:
        ended = asyncio.Event()

        async def later() -> bool:
            await ended.wait()
            return current_session() is None

        async with open_shop.session_scope():
            from_write = asyncio.create_task(later())
        async with open_shop.session_scope(read_only=True):
            from_read = asyncio.create_task(later())
        ended.set()
        assert await from_write
        assert await from_read

    async def test_a_generator_that_is_left_half_way_ends_it(self, open_shop: Database) -> None:
        async def addresses() -> AsyncGenerator[str, None]:
            async with open_shop.session_scope() as db:
                await customers.create(db=db, data={"email": "ann"})
                yield "ann"

        generator = addresses()
        assert await anext(generator) == "ann"
        # As the event loop closes what a client that went away has left: in a task of its own.
        await asyncio.get_running_loop().create_task(generator.aclose(), context=Context())
        assert await names(open_shop) == []

    async def test_cancelled_statements_leave_no_lock(self, open_shop: Database) -> None:
        async def work() -> None:
            async with open_shop.session_scope() as db:
                while True:
                    await db.execute(text("SELECT 1"))

        tasks = []  # kept: what they hold must not matter
        for number in range(30):
            tasks.append(asyncio.create_task(work()))
            await asyncio.sleep(number * 0.0003)
            tasks[-1].cancel()
            await asyncio.wait(tasks[-1:])
        async with asyncio.timeout(5), open_shop.session_scope() as db:
            await customers.create(db=db, data={"email": "ann"})
        assert await names(open_shop) == ["ann"]

    async def test_a_commit_within_begins_a_new_transaction(self, open_shop: Database) -> None:
        with suppress(LookupError):
            async with open_shop.session_scope() as db:
                await customers.create(db=db, data={"email": "ann"})
                await db.commit()
                await customers.create(db=db, data={"email": "bob"})
                raise LookupError
        assert await names(open_shop) == ["ann"]

    async def test_its_session_is_of_no_use_afterwards(self, open_shop: Database) -> None:
        async with open_shop.session_scope() as db:
            pass
        with pytest.raises(InvalidRequestError, match="closed"):
            await db.scalar(text("SELECT 1"))


class TestReadOnly:
    async def test_it_refuses_to_write(self, open_shop: Database) -> None:
        with pytest.raises(DBAPIError, match=r"read-?only"):
            async with open_shop.session_scope(read_only=True) as db:
                await customers.create(db=db, data={"email": "ann"})
        assert await names(open_shop) == []

    async def test_its_connection_writes_again_in_a_writing_unit(self, open_shop: Database) -> None:
        for number in range(3):
            async with open_shop.session_scope(read_only=True) as db:
                assert await customers.count(db=db) == number
            async with open_shop.session_scope() as db:
                await customers.create(db=db, data={"email": str(number)})

    async def test_it_does_not_wait_for_a_writer(self, open_shop: Database, ann: Customer) -> None:
        async with open_shop.session_scope() as writer:
            await customers.update(db=writer, model_id=ann.id, data={"points": 9})
            async with asyncio.timeout(5), open_shop.session_scope(read_only=True) as reader:
                read = await customers.get(db=reader, id=ann.id)
                assert read is not None
                assert read.points == 0

    async def test_what_it_was_given_to_store_is_stored_when_it_has_ended(self, open_shop: Database) -> None:
        stored: list[str] = []
        async with open_shop.session_scope(read_only=True) as db:
            store_with(db, Customer(email="late"), lambda: stored.append("late"))
            assert await names(open_shop) == []
        assert await names(open_shop) == ["late"]
        assert stored == ["late"]

    async def test_nothing_is_stored_when_it_fails(self, open_shop: Database) -> None:
        stored: list[str] = []
        with suppress(LookupError):
            async with open_shop.session_scope(read_only=True) as db:
                store_with(db, Customer(email="late"), lambda: stored.append("late"))
                raise LookupError
        assert await names(open_shop) == []
        assert stored == []


class TestConcurrency:
    async def test_no_update_is_lost(self, open_shop: Database, ann: Customer) -> None:
        async def add_one() -> None:
            async with open_shop.session_scope() as db:
                customer = await customers.get(db=db, id=ann.id, for_update=True)
                assert customer is not None
                await asyncio.sleep(0.001)
                await customers.update(db=db, model=customer, data={"points": customer.points + 1})

        await asyncio.gather(*[add_one() for _ in range(20)])
        async with open_shop.session_scope(read_only=True) as db:
            customer = await customers.get(db=db, id=ann.id)
        assert customer is not None
        assert customer.points == 20


class TestOnCommit:
    async def test_it_is_called_once_after_the_commit(self, open_shop: Database) -> None:
        called: list[int] = []
        async with open_shop.session_scope() as db:
            on_commit(db, lambda: called.append(1))
            await customers.create(db=db, data={"email": "ann"})
            assert called == []
            await db.commit()
            assert called == [1]
            await customers.create(db=db, data={"email": "bob"})
        assert called == [1]

    async def test_the_release_of_a_savepoint_is_no_commit(self, open_shop: Database) -> None:
        called: list[int] = []
        async with open_shop.session_scope() as db:
            async with db.begin_nested():
                await customers.create(db=db, data={"email": "ann"})
                on_commit(db, lambda: called.append(1))
            assert called == []
        assert called == [1]

    async def test_a_rollback_forgets_it(self, open_shop: Database) -> None:
        called: list[int] = []
        async with open_shop.session_scope() as db:
            await customers.create(db=db, data={"email": "ann"})
            on_commit(db, lambda: called.append(1))
            await db.rollback()
            await customers.create(db=db, data={"email": "bob"})
        assert called == []

    async def test_a_savepoint_that_rolls_back_forgets_its_own(self, open_shop: Database) -> None:
        called: list[str] = []
        async with open_shop.session_scope() as db:
            await customers.create(db=db, data={"email": "ann"})
            on_commit(db, lambda: called.append("outer"))
            with suppress(LookupError):
                async with db.begin_nested():
                    on_commit(db, lambda: called.append("inner"))
                    async with db.begin_nested():
                        on_commit(db, lambda: called.append("innermost"))
                    raise LookupError
        assert called == ["outer"]

    async def test_what_it_stores_itself_is_stored(self, open_shop: Database) -> None:
        stored: list[str] = []
        async with open_shop.session_scope() as db:
            await customers.create(db=db, data={"email": "ann"})
            on_commit(db, lambda: store_with(db, Customer(email="bob"), lambda: stored.append("bob")))
        assert (await names(open_shop), stored) == (["ann", "bob"], ["bob"])

    async def test_a_row_and_its_callback_share_a_fate(self, open_shop: Database) -> None:
        stored: list[str] = []
        async with open_shop.session_scope() as db:
            store_with(db, Customer(email="kept"), lambda: stored.append("kept"))
            await db.commit()
            store_with(db, Customer(email="lost"), lambda: stored.append("lost"))
            await db.flush()
            await db.rollback()
        assert (await names(open_shop), stored) == (["kept"], ["kept"])
