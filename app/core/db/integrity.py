"""Named errors for violated constraints."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Index, MetaData, Table, TextClause, UniqueConstraint
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.db.base import BaseModel
from app.core.exceptions import (
    CheckViolation,
    ForeignKeyViolation,
    IntegrityViolation,
    NotNullViolation,
    UniqueViolation,
)

# https://www.postgresql.org/docs/current/errcodes-appendix.html, class 23
_BY_SQLSTATE: dict[str, type[IntegrityViolation]] = {
    "23505": UniqueViolation,
    "23503": ForeignKeyViolation,
    "23001": ForeignKeyViolation,
    "23502": NotNullViolation,
    "23514": CheckViolation,
}
# The message, not the code: a refused ON DELETE RESTRICT has the code of a trigger.
_BY_SQLITE_WORD: dict[str, type[IntegrityViolation]] = {
    "UNIQUE": UniqueViolation,
    "FOREIGN KEY": ForeignKeyViolation,
    "NOT NULL": NotNullViolation,
    "CHECK": CheckViolation,
}
_SQLITE_MESSAGE = re.compile(r"(UNIQUE|FOREIGN KEY|NOT NULL|CHECK) constraint failed(?:: (.*))?", re.DOTALL)


@contextmanager
def named_violations(metadata: MetaData = BaseModel.metadata) -> Iterator[None]:
    """Turn an IntegrityError of the block into UniqueViolation and its siblings, the driver's error as the cause.

    The transaction is over then, as with every failed flush: roll back, or write inside `db.begin_nested()`.
    """
    try:
        yield
    except IntegrityError as exc:
        raise _violation(exc, metadata) from exc


def lacks_tables(error: BaseException | None) -> bool:
    """True if a driver's error says that a table or a column is missing."""
    # https://www.postgresql.org/docs/current/errcodes-appendix.html
    return getattr(error, "sqlstate", None) in ("42P01", "42703") or str(error).startswith("no such ")


async def insert_unless_taken(
    session: AsyncSession,
    model: type[BaseModel],
    values: Mapping[str, Any],
    *,
    unique: tuple[str, ...],
    where: TextClause | None = None,
) -> int | None:
    """Insert a row and return its id; None where another has the same `unique` columns.

    Unlike a refused flush this leaves the transaction usable. It waits for a transaction that is inserting the same;
    `where` is the condition of a partial unique index.
    """
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    statement = insert(model).values(values).on_conflict_do_nothing(index_elements=unique, index_where=where)
    return await session.scalar(statement.returning(model.id))


def _violation(exc: IntegrityError, metadata: MetaData) -> IntegrityViolation:
    diagnosis = getattr(exc.orig, "diag", None)
    if diagnosis is not None:  # psycopg
        kind = _BY_SQLSTATE.get(diagnosis.sqlstate, IntegrityViolation)
        return kind(constraint=diagnosis.constraint_name)
    found = _SQLITE_MESSAGE.fullmatch(str(exc.orig))
    if found is None:
        return IntegrityViolation()
    word, subject = found.groups()
    return _BY_SQLITE_WORD[word](constraint=_sqlite_constraint(word, subject, metadata))


def _sqlite_constraint(word: str, subject: str | None, metadata: MetaData) -> str | None:
    """The constraint's name: SQLite tells it for checks, a unique one by its columns, a foreign key not at all."""
    if subject is None or word == "NOT NULL":
        return None
    if word == "CHECK":
        return subject
    if subject.startswith("index '"):  # an index over expressions
        return subject.removeprefix("index '").removesuffix("'")
    columns = [item.strip().rpartition(".") for item in subject.split(",")]
    table = metadata.tables.get(columns[0][0])
    return None if table is None else _unique_name(table, {name for _, _, name in columns})


def _unique_name(table: Table, columns: set[str]) -> str | None:
    """The unique constraint or index of `table` over exactly `columns`."""
    candidates: list[Index | UniqueConstraint] = [index for index in table.indexes if index.unique]
    candidates += [item for item in table.constraints if isinstance(item, UniqueConstraint)]
    for candidate in candidates:
        if {column.name for column in candidate.columns} == columns and candidate.name is not None:
            return str(candidate.name)
    return str(table.primary_key.name) if set(table.primary_key.columns.keys()) == columns else None
