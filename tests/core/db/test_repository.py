"""Reading and writing through a repository."""

from typing import TypeVar

import pytest
from pydantic import BaseModel as PydanticModel
from sqlalchemy import Select
from sqlalchemy.exc import MultipleResultsFound
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.db import BaseModel, BaseRepository, Database, FilterParam, ListParams, SortOrder, SortParam
from app.core.exceptions import NotFoundError, UniqueViolation
from tests.core.db.models import Customer, CustomerNotFound, CustomerRepository, Order, OrderRepository

M = TypeVar("M", bound=BaseModel)

customers = CustomerRepository()
orders = OrderRepository()


class CustomerPatch(PydanticModel):
    """What a PATCH may send."""

    email: str | None = None
    name: str | None = None


async def store(db: AsyncSession, *names: str) -> list[Customer]:
    """Customers of these names, in this order."""
    return await customers.create_many(db=db, data=[{"email": f"{name}@example.com", "name": name} for name in names])


class TestGet:
    async def test_by_id_and_by_several_columns(self, shop: AsyncSession) -> None:
        ann, bob = await store(shop, "ann", "bob")
        assert await customers.get(db=shop, id=ann.id) is ann
        assert await customers.get(db=shop, name="bob", email="bob@example.com") is bob
        assert await customers.get(db=shop, name="bob", id=ann.id) is None

    async def test_none_is_null_and_a_list_is_one_of(self, shop: AsyncSession) -> None:
        (ann,) = await store(shop, "ann")
        nameless = await customers.create(db=shop, data={"email": "x@example.com"})
        assert await customers.get(db=shop, name=None) is nameless
        assert await customers.get(db=shop, name=["ann", "zoe"]) is ann

    async def test_several_rows_are_an_error(self, shop: AsyncSession) -> None:
        await store(shop, "ann", "bob")
        with pytest.raises(MultipleResultsFound):
            await customers.get(db=shop, points=0)

    async def test_what_must_exist(self, shop: AsyncSession) -> None:
        (ann,) = await store(shop, "ann")
        assert await customers.require(db=shop, id=ann.id, name="ann") is ann
        await customers.delete(db=shop, model=ann)
        with pytest.raises(CustomerNotFound):
            await customers.require(db=shop, id=ann.id)
        assert await customers.require(db=shop, id=ann.id, with_deleted=True) is ann

    @pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 10**40])
    async def test_a_number_that_no_column_holds_is_in_no_row(self, shop: AsyncSession, number: int) -> None:
        (ann,) = await store(shop, "ann")
        assert await customers.get(db=shop, id=number) is None
        assert await customers.get(db=shop, id=[ann.id, number]) is ann
        assert await customers.count(db=shop, points=number) == 0
        assert not await customers.exists(db=shop, points=2**31)
        with pytest.raises(CustomerNotFound):
            await customers.delete(db=shop, model_id=number)

    async def test_an_unknown_column_is_an_error(self, shop: AsyncSession) -> None:
        with pytest.raises(TypeError, match="Customer has no column nick"):
            await customers.get(db=shop, nick="a")

    async def test_for_update_reads_what_another_unit_committed(self, open_shop: Database) -> None:
        async with open_shop.session_scope() as db:
            await store(db, "ann")
        async with open_shop.session_scope() as db:
            ann = await customers.get(db=db, id=1)
            assert ann is not None
            await db.commit()
            async with open_shop.session_scope() as other:
                await customers.update(db=other, model_id=1, data={"points": 5})
            assert ann.points == 0
            await customers.get(db=db, id=1, for_update=True)
            assert ann.points == 5


class TestGetList:
    async def test_the_page_and_the_total(self, shop: AsyncSession) -> None:
        await store(shop, *"abcde")
        result = await customers.get_list(db=shop, params=ListParams(page=2, per_page=2))
        assert [item.name for item in result.items] == ["c", "d"]
        assert (result.total, result.page, result.per_page) == (5, 2, 2)

    async def test_a_page_past_the_end_is_empty(self, shop: AsyncSession) -> None:
        await store(shop, "a")
        result = await customers.get_list(db=shop, params=ListParams(page=1_000_000, per_page=100))
        assert (list(result.items), result.total) == ([], 1)

    async def test_sorts_apply_in_their_order_and_id_breaks_ties(self, shop: AsyncSession) -> None:
        rows = [("x", 1), ("y", 1), ("x", 2), ("y", 2), ("x", 1)]
        await customers.create_many(
            db=shop, data=[{"email": str(i), "name": name, "points": points} for i, (name, points) in enumerate(rows)]
        )
        sort = (SortParam(field="points", order=SortOrder.DESC), SortParam(field="name"))
        result = await customers.get_list(db=shop, params=ListParams(sort=sort))
        assert [item.email for item in result.items] == ["2", "3", "0", "4", "1"]

    async def test_id_descending_is_not_sorted_twice(self, shop: AsyncSession) -> None:
        await store(shop, "a", "b")
        params = ListParams(sort=(SortParam(field="id", order=SortOrder.DESC),))
        assert [item.name for item in (await customers.get_list(db=shop, params=params)).items] == ["b", "a"]

    async def test_filters_of_the_query_and_of_the_code_all_apply(self, shop: AsyncSession) -> None:
        await store(shop, "a", "b", "c")
        params = ListParams(filters=(FilterParam(field="name", value=("a", "b")),))
        result = await customers.get_list(db=shop, params=params, email=["b@example.com", "c@example.com"])
        assert ([item.name for item in result.items], result.total) == (["b"], 1)

    async def test_deleted_rows_are_neither_listed_nor_counted(self, shop: AsyncSession) -> None:
        ann, _ = await store(shop, "ann", "bob")
        await customers.delete(db=shop, model=ann)
        result = await customers.get_list(db=shop, params=ListParams())
        assert ([item.name for item in result.items], result.total) == (["bob"], 1)

    async def test_a_result_can_be_converted(self, shop: AsyncSession) -> None:
        await store(shop, "ann")
        result = (await customers.get_list(db=shop, params=ListParams())).map(lambda customer: customer.email)
        assert (result.items, result.total) == (["ann@example.com"], 1)


class TestExistsAndCount:
    async def test_they_see_what_get_sees(self, shop: AsyncSession) -> None:
        ann, _ = await store(shop, "ann", "bob")
        assert await customers.count(db=shop) == 2
        assert await customers.exists(db=shop, name="ann")
        await customers.delete(db=shop, model=ann)
        assert await customers.count(db=shop) == 1
        assert await customers.count(db=shop, name="ann") == 0
        assert not await customers.exists(db=shop, name="ann")


class TestCreate:
    async def test_from_values_a_schema_or_an_instance(self, shop: AsyncSession) -> None:
        a = await customers.create(db=shop, data={"email": "a"})
        b = await customers.create(db=shop, data=CustomerPatch(email="b"))
        c = await customers.create(db=shop, model=Customer(email="c"))
        assert [a.id, b.id, c.id] == [1, 2, 3]

    async def test_neither_and_both_are_errors(self, shop: AsyncSession) -> None:
        with pytest.raises(TypeError, match="either data or model"):
            await customers.create(db=shop)
        with pytest.raises(TypeError, match="either data or model"):
            await customers.create(db=shop, data={}, model=Customer())


class TestUpdate:
    async def test_a_given_none_sets_null_and_what_is_not_given_stays(self, shop: AsyncSession) -> None:
        (ann,) = await store(shop, "ann")
        await customers.update(db=shop, model=ann, data=CustomerPatch(name=None))
        await shop.refresh(ann)
        assert (ann.name, ann.email) == (None, "ann@example.com")

    async def test_by_id(self, shop: AsyncSession) -> None:
        (ann,) = await store(shop, "ann")
        updated = await customers.update(db=shop, model_id=ann.id, data={"points": 3})
        assert updated is ann
        assert ann.points == 3

    async def test_an_unknown_or_deleted_id_is_not_found(self, shop: AsyncSession) -> None:
        (ann,) = await store(shop, "ann")
        await customers.delete(db=shop, model=ann)
        for row_id in (ann.id, 99):
            with pytest.raises(CustomerNotFound):
                await customers.update(db=shop, model_id=row_id, data={"points": 3})

    async def test_neither_model_nor_id_is_an_error(self, shop: AsyncSession) -> None:
        with pytest.raises(TypeError, match="either model or model_id"):
            await customers.update(db=shop, data={"points": 3})


class TestDelete:
    async def test_a_soft_delete_hides_the_row_and_keeps_it(self, shop: AsyncSession) -> None:
        (ann,) = await store(shop, "ann")
        await customers.delete(db=shop, model_id=ann.id)
        assert ann.is_deleted
        assert await customers.get(db=shop, id=ann.id) is None
        assert await customers.get(db=shop, id=ann.id, with_deleted=True) is ann

    async def test_a_deleted_rows_value_can_be_used_again(self, shop: AsyncSession) -> None:
        (ann,) = await store(shop, "ann")
        await customers.delete(db=shop, model=ann)
        (again,) = await store(shop, "ann")
        assert again.id != ann.id
        with pytest.raises(UniqueViolation):
            await store(shop, "ann")

    async def test_a_hard_delete_removes_the_row_even_a_deleted_one(self, shop: AsyncSession) -> None:
        (ann,) = await store(shop, "ann")
        await customers.delete(db=shop, model_id=ann.id)
        await customers.delete(db=shop, model_id=ann.id, hard=True)
        assert await customers.get(db=shop, id=ann.id, with_deleted=True) is None

    async def test_a_model_without_the_mark_loses_the_row(self, shop: AsyncSession) -> None:
        (ann,) = await store(shop, "ann")
        order = await orders.create(db=shop, data={"customer_id": ann.id, "number": 1})
        await orders.delete(db=shop, model=order)
        assert await shop.get(Order, order.id) is None

    async def test_deleting_twice_by_id_is_not_found(self, shop: AsyncSession) -> None:
        (ann,) = await store(shop, "ann")
        await customers.delete(db=shop, model_id=ann.id)
        with pytest.raises(NotFoundError):
            await customers.delete(db=shop, model_id=ann.id)


class TestDeleteAll:
    async def test_softly_what_fits(self, shop: AsyncSession) -> None:
        ann, bob = await store(shop, "ann", "bob")
        assert await customers.delete_all(db=shop, name="ann") == 1
        await shop.refresh(ann)
        assert ann.is_deleted
        assert not bob.is_deleted
        assert await customers.delete_all(db=shop) == 1
        assert await customers.count(db=shop) == 0

    async def test_hard_removes_the_deleted_ones_too(self, shop: AsyncSession) -> None:
        ann, _ = await store(shop, "ann", "bob")
        await customers.delete(db=shop, model=ann)
        assert await customers.delete_all(db=shop, hard=True) == 2
        assert await customers.get(db=shop, id=ann.id, with_deleted=True) is None


class TestRestore:
    async def test_a_deleted_row_comes_back(self, shop: AsyncSession) -> None:
        (ann,) = await store(shop, "ann")
        await customers.delete(db=shop, model=ann)
        assert await customers.restore(db=shop, model_id=ann.id) is ann
        assert await customers.get(db=shop, name="ann") is ann

    async def test_not_when_its_value_was_taken(self, shop: AsyncSession) -> None:
        (ann,) = await store(shop, "ann")
        await customers.delete(db=shop, model=ann)
        await store(shop, "ann")
        with pytest.raises(UniqueViolation):
            await customers.restore(db=shop, model_id=ann.id)

    async def test_an_unknown_id_is_not_found(self, shop: AsyncSession) -> None:
        with pytest.raises(NotFoundError):
            await customers.restore(db=shop, model_id=99)

    async def test_a_model_without_the_mark_cannot(self, shop: AsyncSession) -> None:
        with pytest.raises(TypeError, match="Order has no column deleted_at"):
            await orders.restore(db=shop, model=Order(customer_id=1, number=1))


class TestCommit:
    async def test_several_repositories_share_one_transaction(self, open_shop: Database) -> None:
        async with open_shop.session_scope() as db:
            (ann,) = await store(db, "ann")
            await orders.create(db=db, data={"customer_id": ann.id, "number": 1})
            await orders.commit(db=db)
            await store(db, "bob")
            await db.rollback()
        async with open_shop.session_scope(read_only=True) as db:
            assert (await customers.count(db=db), await orders.count(db=db)) == (1, 1)

    async def test_what_is_refused_at_the_commit_has_its_name(self, open_shop: Database) -> None:
        async with open_shop.session_scope() as db:
            await store(db, "ann")
            db.add(Customer(email="ann@example.com"))
            with pytest.raises(UniqueViolation) as caught:
                await customers.commit(db=db)
            assert caught.value.constraint == "uq_shop_customers_email"
            await db.rollback()


class TestBaseStatement:
    async def test_what_a_repository_adds_to_it_holds_everywhere(self, shop: AsyncSession) -> None:
        class VipRepository(CustomerRepository):
            def base_statement(self, *, with_deleted: bool = False) -> Select[Customer]:
                return super().base_statement(with_deleted=with_deleted).where(Customer.points >= 100)

        vips = VipRepository()
        await store(shop, "ann")
        bob = await customers.create(db=shop, data={"email": "bob", "points": 100})
        assert (await vips.get_list(db=shop, params=ListParams())).items == [bob]
        assert await vips.count(db=shop) == 1
        assert not await vips.exists(db=shop, name="ann")
        assert await vips.delete_all(db=shop) == 1
        assert await customers.count(db=shop) == 1


class TestTypeArgument:
    async def test_it_is_the_model(self, shop: AsyncSession) -> None:
        class Clients(BaseRepository[Customer]):
            """Without an attribute."""

        await store(shop, "ann")
        for repository in (Clients(), BaseRepository[Customer]()):
            assert repository.model is Customer
            assert await repository.count(db=shop) == 1
        assert BaseRepository[Customer] is BaseRepository[Customer]

    def test_a_subclass_may_stay_generic(self) -> None:
        class Locked(BaseRepository[M]):
            """Of any model."""

        assert issubclass(Locked[Order], Locked)
        assert Locked[Order]().model is Order
        assert CustomerRepository.model is Customer
