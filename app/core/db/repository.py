"""The only place of SQL: a repository per model, every query built on one base statement."""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, ClassVar, Generic, TypeAlias, TypeVar, cast, overload

from pydantic import BaseModel as PydanticModel
from pydantic import TypeAdapter
from sqlalchemy import Column, ColumnElement, CursorResult, Select, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.sql.dml import UpdateBase

from app.core.db.base import BaseModel, SoftDeleteMixin, utcnow
from app.core.db.conditions import condition, ordering
from app.core.db.integrity import named_violations
from app.core.db.keyset import Keyset
from app.core.db.list_params import FilterParam, ListParams, PaginatedResult, SortOrder
from app.core.exceptions import NotFoundError

M = TypeVar("M", bound=BaseModel)
S = TypeVar("S", bound=PydanticModel)

Data: TypeAlias = Mapping[str, Any] | PydanticModel
"""Column values: a mapping, or a schema of which what was set counts (a None that was set is NULL)."""


class BaseRepository(Generic[M]):
    """Reads and writes rows of `model`:

        class UserRepository(BaseRepository[User]):
            model = User

    Methods never commit; the service does, with `commit(db=db)`, so that several repositories share one
    transaction. Writes are flushed, so what the database refuses is raised where it was written, as
    UniqueViolation, ForeignKeyViolation, NotNullViolation or CheckViolation; the transaction is over then
    (roll back, or write inside `db.begin_nested()`).

    `**filters` are columns by name: equality, IS NULL for None, IN for a list, tuple or set.
    """

    model: type[M]
    not_found: ClassVar[type[NotFoundError]] = NotFoundError
    """What `require`, `update`, `delete` and `restore` raise for a row that does not exist: name the module's own."""

    def base_statement(self, *, with_deleted: bool = False) -> Select[M]:
        """The rows that exist; soft-deleted ones only where asked for. Override it to narrow or `selectinload` more."""
        statement: Select[M] = select(self.model)
        if self._soft_deletes and not with_deleted:
            statement = statement.where(self._column("deleted_at").is_(None))
        return statement

    async def get(
        self, *, db: AsyncSession, for_update: bool = False, with_deleted: bool = False, **filters: Any
    ) -> M | None:
        """The one row that fits, or None; several are an error (MultipleResultsFound).

        `for_update` locks the row until the transaction ends and reads its latest state.
        """
        statement = self._fitting(filters, with_deleted=with_deleted)
        if for_update:
            statement = statement.with_for_update(of=self.model).execution_options(populate_existing=True)
        return (await db.scalars(statement)).one_or_none()

    async def require(
        self, *, db: AsyncSession, for_update: bool = False, with_deleted: bool = False, **filters: Any
    ) -> M:
        """As `get`, and `not_found` where there is none."""
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
        """The page that `params` asks for and the total, two statements; with a cursor one, and no total.

        Rows are entities, or `into` a schema of which only the columns it has are read.
        """
        found = self._fitting(filters).where(*(self.list_condition(item) for item in params.filters))
        shown = found if into is None else found.with_only_columns(*self._columns_of(into), maintain_column_froms=True)
        if params.cursor is not None:
            walk = Keyset(self.model, params, params.cursor)
            around, cursors = walk.cut((await db.execute(walk.page(shown.add_columns(*walk.columns)))).all())
            return PaginatedResult(_items(around, into), None, None, params.per_page, cursors)
        page = shown.order_by(*self._ordering(params)).limit(params.per_page)
        rows = (await db.execute(page.offset((params.page - 1) * params.per_page))).all()
        return PaginatedResult(_items(rows, into), await self._count(db, found), params.page, params.per_page)

    def list_field(self, name: str) -> ColumnElement[Any]:
        """What a field of a list stands for: its column. Override it for the `virtual` fields of the params."""
        return self._column(name)

    def list_condition(self, item: FilterParam) -> ColumnElement[bool]:
        """What a filter of a list asks. Override it for a field that is no single expression."""
        return condition(self.list_field(item.field), item.value, item.lookup)

    async def exists(self, *, db: AsyncSession, **filters: Any) -> bool:
        """Whether any row fits."""
        return bool(await db.scalar(select(self._fitting(filters).exists())))

    async def count(self, *, db: AsyncSession, **filters: Any) -> int:
        """How many rows fit."""
        return await self._count(db, self._fitting(filters))

    async def create(self, *, db: AsyncSession, data: Data | None = None, entity: M | None = None) -> M:
        """Store one new row, given as values or as an instance."""
        if (data is None) == (entity is None):
            raise TypeError("give either data or entity")
        row = entity or self._new(data or {})
        await self._store(db, [row])
        return row

    async def create_many(self, *, db: AsyncSession, data: Iterable[Data]) -> list[M]:
        """Store several new rows at once."""
        rows = [self._new(item) for item in data]
        await self._store(db, rows)
        return rows

    async def update(
        self,
        *,
        db: AsyncSession,
        data: Data,
        entity: M | None = None,
        id: int | None = None,  # noqa: A002  the column's name
    ) -> M:
        """Change the columns that `data` gives, to NULL where it gives None; an unknown `id` is `not_found`."""
        row = await self._row(db, entity, id)
        row.update(**_values(data))
        await self._store(db, [row])
        return row

    async def delete(
        self,
        *,
        db: AsyncSession,
        entity: M | None = None,
        id: int | None = None,  # noqa: A002
        hard: bool = False,
    ) -> None:
        """Delete one row: marked as deleted where the model can, removed otherwise or when `hard`."""
        row = await self._row(db, entity, id, with_deleted=hard)
        if isinstance(row, SoftDeleteMixin) and not hard:
            row.deleted_at = utcnow()
            await self._store(db, [row])
        else:
            await db.delete(row)
            await self._flush(db)

    async def delete_all(self, *, db: AsyncSession, hard: bool = False, **filters: Any) -> int:
        """Delete every row that fits with one statement, softly where the model can; the number of rows."""
        rows = self.model.id.in_(self._ids(self._fitting(filters, with_deleted=hard)))
        statement: UpdateBase = delete(self.model).where(rows)
        if self._soft_deletes and not hard:
            statement = update(self.model).where(rows).values(deleted_at=utcnow())
        with named_violations(self.model.metadata):
            result = cast(CursorResult[Any], await db.execute(statement))
        return result.rowcount

    async def restore(
        self,
        *,
        db: AsyncSession,
        entity: M | None = None,
        id: int | None = None,  # noqa: A002
    ) -> M:
        """Bring a soft-deleted row back; UniqueViolation where its value was taken meanwhile."""
        row = await self._row(db, entity, id, with_deleted=True)
        row.update(deleted_at=None)
        await self._store(db, [row])
        return row

    async def commit(self, *, db: AsyncSession) -> None:
        """End the transaction well: all that was written through `db`, by this repository or another."""
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

    def _ids(self, statement: Select[M]) -> Select[int]:
        """`statement` for the ids alone, without what it says about loading."""
        return statement.with_only_columns(self.model.id)

    async def _count(self, db: AsyncSession, statement: Select[M]) -> int:
        return await db.scalar(select(func.count()).select_from(self._ids(statement).subquery())) or 0

    def _ordering(self, params: ListParams) -> list[ColumnElement[Any]]:
        """The sorts asked for; `id` last, so that no row is on two pages or on none."""
        asked = [(item.field, item.order) for item in params.sort]
        if "id" not in [field for field, _ in asked]:
            asked.append(("id", SortOrder.ASC))
        return [ordering(self.list_field(field), order) for field, order in asked]

    def _columns_of(self, schema: type[PydanticModel]) -> list[ColumnElement[Any]]:
        fields = [self.list_field(name) for name in schema.model_fields]
        # A label costs more than it gives where the column has a name of its own.
        return [field if isinstance(field, Column) else field.label(None) for field in fields]

    def _new(self, data: Data) -> M:
        return self.model.from_dict(_values(data))

    async def _row(self, db: AsyncSession, entity: M | None, row_id: int | None, *, with_deleted: bool = False) -> M:
        if (entity is None) == (row_id is None):
            raise TypeError("give either entity or id")
        return entity or await self.require(db=db, id=row_id, with_deleted=with_deleted)

    async def _store(self, db: AsyncSession, rows: Iterable[M]) -> None:
        db.add_all(rows)
        await self._flush(db)

    async def _flush(self, db: AsyncSession) -> None:
        with named_violations(self.model.metadata):
            await db.flush()


def _values(data: Data) -> Mapping[str, Any]:
    return data.model_dump(exclude_unset=True) if isinstance(data, PydanticModel) else data


def _items(rows: Iterable[Any], into: type[S] | None) -> list[Any]:
    """The first column of every row, an entity, or the columns as `into`."""
    if into is None:
        return [row[0] for row in rows]
    names = tuple(into.model_fields)
    # By the fields' names, an alias is for the API; not strictly, a keyset has columns of its own at the end.
    return _adapter(into).validate_python([dict(zip(names, row, strict=False)) for row in rows], by_name=True)


@lru_cache
def _adapter(schema: type[S]) -> TypeAdapter[list[S]]:
    return TypeAdapter(list[schema])  # type: ignore[valid-type]  # known when it runs only
