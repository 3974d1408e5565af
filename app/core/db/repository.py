"""The only place of SQL: a repository per model, every query built on one base statement."""

from collections.abc import AsyncIterator, Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeAlias, TypeVar, cast, overload

from pydantic import BaseModel as PydanticModel
from sqlalchemy import Column, ColumnElement, CursorResult, Select, delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.sql.dml import UpdateBase

from app.core.db.base import BaseModel, SoftDeleteMixin, utcnow
from app.core.db.integrity import named_violations
from app.core.db.list_params import FilterParam, ListParams, PaginatedResult
from app.core.db.pages import condition, count_rows, read_page
from app.core.exceptions import NotFoundError

M = TypeVar("M", bound=BaseModel)
S = TypeVar("S", bound=PydanticModel)

STREAMED_ROWS = 100

Data: TypeAlias = Mapping[str, Any] | PydanticModel
"""Column values: a mapping, or a schema of which what was set counts (a None that was set is NULL)."""


class BaseRepository(Generic[M]):
    """Reads and writes rows of one model, here of User:

        class UserRepository(BaseRepository[User]):
            not_found = UserNotFound

    Methods never commit; the service does, with `commit(db=db)`, so that several repositories share one
    transaction. Writes are flushed, so what the database refuses is raised where it was written, as
    UniqueViolation, ForeignKeyViolation, NotNullViolation or CheckViolation; the transaction is over then
    (roll back, or write inside `db.begin_nested()`).

    `**filters` are columns by name: equality, IS NULL for None, IN for a list, tuple or set.
    """

    model: type[M]
    """The type argument, unless a subclass sets it."""

    not_found: ClassVar[type[NotFoundError]] = NotFoundError
    """Raised by `require`, `update`, `delete` and `restore` for a row that does not exist: name the module's own."""

    if not TYPE_CHECKING:

        @classmethod
        @cache
        def __class_getitem__(cls, argument: Any) -> Any:
            """`BaseRepository[User]` is a class of its own, whose model is User."""
            if isinstance(argument, type) and issubclass(argument, BaseModel):
                return type(
                    f"{cls.__name__}[{argument.__name__}]", (cls,), {"model": argument, "__module__": cls.__module__}
                )
            return super().__class_getitem__(argument)

    def base_statement(self, *, with_deleted: bool = False) -> Select[M]:
        """Select the rows that exist, soft-deleted ones where asked for. Override it to narrow it or to load more."""
        statement: Select[M] = select(self.model)
        if self._soft_deletes and not with_deleted:
            statement = statement.where(self._column("deleted_at").is_(None))
        return statement

    async def get(
        self, *, db: AsyncSession, for_update: bool = False, with_deleted: bool = False, **filters: Any
    ) -> M | None:
        """Return the one row that fits, or None; several are an error (MultipleResultsFound).

        `for_update` locks the row until the transaction ends and reads its latest state.
        """
        statement = self._fitting(filters, with_deleted=with_deleted)
        if for_update:
            statement = statement.with_for_update(of=self.model).execution_options(populate_existing=True)
        return (await db.scalars(statement)).one_or_none()

    async def require(
        self, *, db: AsyncSession, for_update: bool = False, with_deleted: bool = False, **filters: Any
    ) -> M:
        """Return the row as `get` does; raise `not_found` where there is none."""
        row = await self.get(db=db, for_update=for_update, with_deleted=with_deleted, **filters)
        if row is None:
            raise self.not_found
        return row

    @overload
    async def get_list(
        self, *, db: AsyncSession, params: ListParams, into: type[S], **filters: Any
    ) -> PaginatedResult[S]: ...

    @overload
    async def get_list(self, *, db: AsyncSession, params: ListParams, **filters: Any) -> PaginatedResult[M]: ...

    async def get_list(
        self, *, db: AsyncSession, params: ListParams, into: type[S] | None = None, **filters: Any
    ) -> PaginatedResult[M] | PaginatedResult[S]:
        """Read the page that `params` asks for and the total, two statements; with a cursor one, and no total.

        Rows are entities, or `into` a schema of which only the columns it has are read.
        """
        return await read_page(self, self._fitting(filters), params, db=db, into=into)

    def list_field(self, name: str) -> ColumnElement[Any]:
        """Return the column of a field of a list. Override it for the `virtual` fields of the params."""
        return self._column(name)

    def list_condition(self, item: FilterParam) -> ColumnElement[bool]:
        """Return the condition of a filter. Override it for a field that is no single expression."""
        return condition(self.list_field(item.field), item.value, item.lookup)

    async def stream(
        self, *conditions: ColumnElement[bool], db: AsyncSession, fields: Iterable[str], **filters: Any
    ) -> AsyncIterator[dict[str, Any]]:
        """Yield these columns of every row that fits, soft-deleted ones too, by id; never all of them in memory."""
        columns = [self._column(name) for name in fields]
        statement = self._fitting(filters, with_deleted=True).where(*conditions).with_only_columns(*columns)
        ordered = statement.order_by(self.model.id).execution_options(yield_per=STREAMED_ROWS)
        async for row in await db.stream(ordered):
            yield row._asdict()

    async def exists(self, *, db: AsyncSession, **filters: Any) -> bool:
        """Return whether any row fits."""
        return bool(await db.scalar(select(self._fitting(filters).exists())))

    async def count(self, *, db: AsyncSession, **filters: Any) -> int:
        """Count the rows that fit."""
        return await count_rows(self._fitting(filters), self.model, db=db)

    async def create(self, *, db: AsyncSession, data: Data | None = None, model: M | None = None) -> M:
        """Store one new row, given as values or as an instance."""
        if (data is None) == (model is None):
            raise TypeError("give either data or model")
        row = model or self._new(data or {})
        await self._store(db, [row])
        return row

    async def create_many(self, *, db: AsyncSession, data: Iterable[Data]) -> list[M]:
        """Store several new rows at once."""
        rows = [self._new(item) for item in data]
        await self._store(db, rows)
        return rows

    async def update(self, *, db: AsyncSession, data: Data, model: M | None = None, model_id: int | None = None) -> M:
        """Change the columns that `data` gives, to NULL where it gives None; an unknown id is `not_found`."""
        row = await self._row(db, model, model_id)
        row.update(**_values(data))
        await self._store(db, [row])
        return row

    async def delete(
        self, *, db: AsyncSession, model: M | None = None, model_id: int | None = None, hard: bool = False
    ) -> None:
        """Delete one row: marked as deleted where the model can, removed otherwise or when `hard`."""
        row = await self._row(db, model, model_id, with_deleted=hard)
        if isinstance(row, SoftDeleteMixin) and not hard:
            row.deleted_at = utcnow()
            await self._store(db, [row])
        else:
            await db.delete(row)
            await self._flush(db)

    async def delete_all(self, *, db: AsyncSession, hard: bool = False, **filters: Any) -> int:
        """Delete every row that fits with one statement, softly where the model can; return the number of rows."""
        rows = self.model.id.in_(self._fitting(filters, with_deleted=hard).with_only_columns(self.model.id))
        statement: UpdateBase = delete(self.model).where(rows)
        if self._soft_deletes and not hard:
            statement = update(self.model).where(rows).values(deleted_at=utcnow())
        with named_violations(self.model.metadata):
            result = cast(CursorResult[Any], await db.execute(statement))
        return result.rowcount

    async def restore(self, *, db: AsyncSession, model: M | None = None, model_id: int | None = None) -> M:
        """Bring a soft-deleted row back; UniqueViolation where its value was taken meanwhile."""
        row = await self._row(db, model, model_id, with_deleted=True)
        row.update(deleted_at=None)
        await self._store(db, [row])
        return row

    async def commit(self, *, db: AsyncSession) -> None:
        """Commit all that was written through `db`, by this repository or another."""
        with named_violations(self.model.metadata):
            await db.commit()

    @property
    def _soft_deletes(self) -> bool:
        return issubclass(self.model, SoftDeleteMixin)

    def _column(self, name: str) -> Column[Any]:
        column = self.model.__mapper__.columns.get(name)
        if column is None:
            raise TypeError(f"{self.model.__name__} has no column {name}")
        return column

    def _fitting(self, filters: Mapping[str, Any], *, with_deleted: bool = False) -> Select[M]:
        conditions = [condition(self._column(name), value) for name, value in filters.items()]
        return self.base_statement(with_deleted=with_deleted).where(*conditions)

    def _new(self, data: Data) -> M:
        return self.model.from_dict(_values(data))

    async def _row(self, db: AsyncSession, model: M | None, row_id: int | None, *, with_deleted: bool = False) -> M:
        if (model is None) == (row_id is None):
            raise TypeError("give either model or model_id")
        return model or await self.require(db=db, id=row_id, with_deleted=with_deleted)

    async def _store(self, db: AsyncSession, rows: Iterable[M]) -> None:
        db.add_all(rows)
        await self._flush(db)

    async def _flush(self, db: AsyncSession) -> None:
        with named_violations(self.model.metadata):
            await db.flush()


def _values(data: Data) -> Mapping[str, Any]:
    return data.model_dump(exclude_unset=True) if isinstance(data, PydanticModel) else data
