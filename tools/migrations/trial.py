"""Try every revision on scratch databases with rows in the tables: up, down and up again."""

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from alembic.script import Script
from sqlalchemy import Column, Connection, Enum, MetaData, Table, func, inspect, select
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

from app.core.migrations.env import connected, quiet
from app.core.migrations.refusals import Fault
from app.core.migrations.timelines import MigrationError, RevisionInfo, Timeline
from tools.migrations.developer import DeveloperMigrations, scratch_database

_VALUES: dict[type, Any] = {
    bool: [False, True],
    bytes: [b"1", b"2"],
    date: [date(2020, 1, 1), date(2020, 1, 2)],
    datetime: [datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 1, 2, tzinfo=UTC)],
    Decimal: [Decimal(1), Decimal(2)],
    dict: [{}, {}],
    float: [1.0, 2.0],
    int: [1, 2],
    list: [[], []],
    object: [{}, {}],  # JSON
    str: ["1", "2"],
    time: [time(1), time(2)],
    timedelta: [timedelta(1), timedelta(2)],
    UUID: [UUID(int=1), UUID(int=2)],
}


def check_scratch(server: URL | None, timeline: str | None = None) -> list[Fault]:
    """Check and try the revisions on SQLite, and on a new database at `server`."""
    found: dict[Fault, None] = {}
    for where in (None, server) if server else (None,):
        with scratch_database(where) as migrations:
            read = [fault for line in migrations.timelines.values() for fault in migrations.revision_faults(line)]
            found |= dict.fromkeys(read)
            if any(fault.kind == "owner" for fault in read):
                continue  # what it would find then is another's table that is gone
            tried = try_out(migrations)
            found |= dict.fromkeys(tried)
            if not any(fault.kind == "fails" for fault in tried):
                found |= dict.fromkeys(migrations.check())
    return [fault for fault in found if timeline in (fault.timeline, None)]


def try_out(migrations: DeveloperMigrations) -> list[Fault]:
    """Run all revisions with rows in the tables, back, and again; ends at the heads, or where a revision fails."""
    return list(_Trial(migrations).run())


class _Trial:
    def __init__(self, migrations: DeveloperMigrations) -> None:
        self.migrations = migrations
        self.name = migrations.url.get_backend_name()
        self.unfilled: dict[str, str] = {}

    def run(self) -> Iterator[Fault]:
        lines = list(self.migrations.timelines.values())
        with connected(self.migrations.url) as connection:
            for line in lines:
                for info in self.migrations.ahead(connection, line, "heads"):
                    found = self._upgrade(connection, line, info)
                    yield from found
                    if any(fault.kind == "fails" for fault in found):
                        return
                    self._fill(connection)
            for line, scripts in self.migrations.applied(connection, "base", None):
                yield from self._downgrade(connection, line, scripts)
            for line in lines:
                self.migrations.run(connection, line, self.migrations.ahead(connection, line, "heads"), "heads")
        for table, reason in self.unfilled.items():
            line = self.migrations.timelines.owner(table) or lines[0]
            what = f"not tried with rows in {table} on {self.name}: {reason}"
            yield Fault("unread", line.name, what, "Look at its revisions yourself", blocking=False)

    def _upgrade(self, connection: Connection, line: Timeline, info: RevisionInfo) -> list[Fault]:
        blocking = line.kind != "external"
        try:
            self.migrations.run(connection, line, [info], info.revision)
        except MigrationError as exc:
            what = f"fails on {self.name} where there are rows: {_reason(exc)}"
            self._empty(connection)
        else:
            return []
        try:
            self.migrations.run(connection, line, [info], info.revision)
        except MigrationError as exc:
            what = f"fails on {self.name}: {_reason(exc)}"
            return [Fault("fails", line.name, what, f"Mend {info.path}", info.revision)]
        if self._expects_no_rows(line, info):
            return []
        fix = f'Fill first, or say why there are none in {info.path}: needs_empty = "nobody had it before 2.0"'
        return [Fault("rows", line.name, what, fix, info.revision, blocking)]

    def _expects_no_rows(self, line: Timeline, info: RevisionInfo) -> bool:
        module = self.migrations.scripts(line).get_revision(info.revision).module
        return bool(str(getattr(module, "needs_empty", "")).strip())

    def _downgrade(self, connection: Connection, line: Timeline, scripts: list[Script]) -> Iterator[Fault]:
        for attempt in ("with rows", "without rows"):
            try:
                self.migrations.undo(connection, line, scripts)
            except MigrationError as exc:
                filled = attempt == "with rows"
                blocking = not filled and "NotImplementedError" not in str(exc) and line.kind != "external"
                what = f"its downgrade fails on {self.name} {attempt}: {_reason(exc)}"
                fix = "Give what it adds a server_default" if filled else "Mend it, or raise NotImplementedError"
                yield Fault("rows", line.name, what, fix, blocking=blocking)
                self._empty(connection)
            else:
                return

    def _tables(self, connection: Connection) -> list[Table]:
        versions = {line.version_table for line in self.migrations.timelines.values()}
        names = [name for name in inspect(connection).get_table_names() if name not in versions]
        metadata = MetaData()
        with quiet():
            metadata.reflect(connection, only=names)
        return metadata.sorted_tables

    def _empty(self, connection: Connection) -> None:
        with connection.begin():
            for table in reversed(self._tables(connection)):
                connection.execute(table.delete())

    def _fill(self, connection: Connection) -> None:
        """Two rows for every table without any: one with as little, one with as much in it as can be."""
        with connection.begin():
            for table in self._tables(connection):
                if connection.scalar(select(func.count()).select_from(table)):
                    continue
                for number in (0, 1):
                    try:
                        with connection.begin_nested():
                            connection.execute(table.insert().values(_row(connection, table, number)))
                        self.unfilled.pop(table.name, None)
                    except (SQLAlchemyError, LookupError, NotImplementedError) as exc:
                        self.unfilled.setdefault(table.name, _reason(exc))


def _row(connection: Connection, table: Table, number: int) -> dict[str, Any]:
    checks = [str(one["sqltext"]) for one in inspect(connection).get_check_constraints(table.name)]
    return {
        column.name: _value(connection, column, checks, number)
        for column in table.columns
        if column.computed is None and not (column.primary_key and column is table.autoincrement_column)
        if not column.nullable or (number and not any(key.references(table) for key in column.foreign_keys))
    }


def _value(connection: Connection, column: Column[Any], checks: list[str], number: int) -> Any:
    for key in column.foreign_keys:
        found = list(connection.scalars(select(key.column).order_by(key.column)))
        return found[min(number, len(found) - 1)]
    if isinstance(column.type, Enum):
        return column.type.enums[number % len(column.type.enums)]
    for check in checks:
        if re.search(rf"\b{re.escape(column.name)}\b", check) and (words := re.findall(r"'([^']*)'", check)):
            return words[number % len(words)]
    return _VALUES[column.type.python_type][number]


def _reason(exc: Exception) -> str:
    cause = getattr(exc, "orig", None) or exc
    text = str(cause).partition("\n")[0].partition(". Nothing of it was kept")[0]
    return text.partition(" failed: ")[2] or text
