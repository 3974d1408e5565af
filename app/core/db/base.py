"""Base of all tables: identity, time stamps in UTC, names of constraints, soft delete."""

from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from sqlalchemy import BigInteger, ColumnElement, DateTime, Dialect, Index, Integer, MetaData, Table, text
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator

NAMING_CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

# SQLite counts up only a column that is exactly INTEGER; it holds 64 bits there too.
BIGINT = BigInteger().with_variant(Integer(), "sqlite")


def utcnow() -> datetime:
    """Return the current time, zone-aware, by the clock of this host, which tests can stop."""
    return datetime.now(UTC)


class UtcDateTime(TypeDecorator[datetime]):
    """A zone-aware datetime, read back in UTC on both databases; a naive value is refused."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a naive datetime is refused: give it a time zone")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        # SQLite stores no zone; what was bound is UTC.
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class db_now(FunctionElement[datetime]):  # noqa: N801  reads like a function of SQL
    """SQL expression: the database's time at the start of the statement, plus the given number of seconds.

    Use it for every time that other hosts compare: their clocks differ, the database has one. Tests can stop it.
    """

    inherit_cache = True
    type = UtcDateTime()


@compiles(db_now)
def _by_postgresql(element: db_now, compiler: SQLCompiler, **options: Any) -> str:
    # Not clock_timestamp(): no index helps to compare with a volatile function.
    after = compiler.process(element.clauses, **options)
    return f"(statement_timestamp() + make_interval(secs => {after}))" if after else "statement_timestamp()"


@compiles(db_now, "sqlite")
def _by_sqlite(element: db_now, compiler: SQLCompiler, **options: Any) -> str:
    return f"statement_timestamp({compiler.process(element.clauses, **options)})"  # `prepare_sqlite` defines it


def sqlite_statement_timestamp(after: float = 0) -> str:
    """Return the time as UtcDateTime stores it: SQLite lives on this host."""
    return (utcnow() + timedelta(seconds=after)).replace(tzinfo=None).isoformat(" ", "microseconds")


class BaseModel(DeclarativeBase):
    """Base of all tables. `__tablename__` is `<module>_<name>`."""

    __abstract__ = True
    metadata = MetaData(naming_convention=NAMING_CONVENTION)
    type_annotation_map = {datetime: UtcDateTime()}  # noqa: RUF012  declared so by SQLAlchemy

    id: Mapped[int] = mapped_column(BIGINT, primary_key=True, sort_order=-1)
    created_at: Mapped[datetime] = mapped_column(default=utcnow, sort_order=100)
    updated_at: Mapped[datetime] = mapped_column(default=utcnow, onupdate=utcnow, sort_order=101)

    @classmethod
    def __table_cls__(cls, *args: Any, **kwargs: Any) -> Table:
        # Without AUTOINCREMENT SQLite gives a deleted row's id to the next: an old token would fit a new user.
        return Table(*args, **{"sqlite_autoincrement": True, **kwargs})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Make an instance; TypeError for a key that is no column."""
        return cls().update(**values)

    def to_dict(self, exclude: Collection[str] = ()) -> dict[str, Any]:
        """Return the columns by name, without those in `exclude`."""
        return {name: getattr(self, name) for name in self.column_names() if name not in exclude}

    def update(self, **values: Any) -> Self:
        """Set columns; None sets NULL. TypeError for a name that is no column, and nothing is set."""
        if unknown := values.keys() - set(self.column_names()):
            raise TypeError(f"{type(self).__name__} has no column {', '.join(sorted(unknown))}")
        for name, value in values.items():
            setattr(self, name, value)
        return self

    @classmethod
    def column_names(cls) -> list[str]:
        """Return the names of the attributes that are columns, in table order."""
        return list(cls.__mapper__.columns.keys())

    def __repr__(self) -> str:
        return f"<{type(self).__name__} id={self.__dict__.get('id')}>"


class SoftDeleteMixin:
    """Rows that are marked as deleted instead of removed; repositories hide them."""

    deleted_at: Mapped[datetime | None] = mapped_column(UtcDateTime(), default=None, sort_order=102)

    @property
    def is_deleted(self) -> bool:
        """True if the row is marked as deleted."""
        return self.deleted_at is not None


def live_unique(name: str, *columns: str | ColumnElement[Any]) -> Index:
    """Make a unique index over the rows that are not soft-deleted: a deleted row's value can be used again.

    `name` is `uq_<table>_<columns>`. In `__table_args__`:

        __table_args__ = (live_unique("uq_shop_customers_email", "email"),)
    """
    live = text("deleted_at IS NULL")
    return Index(name, *columns, unique=True, sqlite_where=live, postgresql_where=live)
