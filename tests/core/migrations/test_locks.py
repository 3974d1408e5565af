"""Migrations beside a service at work, and beside each other: nobody waits for ever, and everybody is told."""

import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import URL

from app.core.migrations.env import connected, sync_url
from app.core.migrations.migrate import Migrations
from app.core.migrations.timelines import RevisionInfo, Timeline
from tests.conftest import backend
from tests.core.migrations.timelines import add_revision, migrations, timeline
from tests.processes import wait_for

HANGS = 60
SERVED = bool(backend.environment()["REDIS_URL"])
postgresql = pytest.mark.skipif(not SERVED, reason="SQLite locks its file, not tables")

MAKE = 'op.execute("CREATE TABLE shop_things (id INTEGER PRIMARY KEY)")'
ADD = 'op.add_column("shop_things", sa.Column("note", sa.String(20)))'
INDEX = """
with op.get_context().autocommit_block():
    op.create_index("ix_shop_things_id", "shop_things", ["id"], postgresql_concurrently=True)
"""
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
Start = Callable[[], "Future[list[RevisionInfo]]"]


class Shop:
    """A timeline with one table, and a database to try it on."""

    def __init__(self, url: URL, folder: Path) -> None:
        self.line: Timeline = timeline(folder, "shop")
        self.engine = sa.create_engine(sync_url(url), poolclass=sa.NullPool)
        self.migrations: Migrations = migrations(url, self.line)
        add_revision(self.line, 1, MAKE)
        self.migrations.upgrade()

    def ask(self, statement: str) -> object:
        """One answer, or an error where it takes long."""
        with self.engine.connect() as connection:
            if SERVED:
                connection.exec_driver_sql(f"SET LOCAL statement_timeout = {HANGS * 1000}")
            return connection.exec_driver_sql(statement).scalar()


@pytest.fixture
def shop(template: URL, tmp_path: Path) -> Iterator[Shop]:
    url = backend.empty()
    yield Shop(url, tmp_path)
    backend.drop(url)


@pytest.fixture
def upgrade(shop: Shop) -> Iterator[Start]:
    """Start an upgrade beside the test."""
    with ThreadPoolExecutor() as threads:
        yield lambda: threads.submit(shop.migrations.upgrade)


@postgresql
def test_who_reads_a_table_is_not_held_up_by_a_migration_that_waits(
    shop: Shop, upgrade: Start, caplog: pytest.LogCaptureFixture
) -> None:
    add_revision(shop.line, 2, ADD)
    with shop.engine.connect() as reader:
        reader.exec_driver_sql("SET application_name = 'slow report'")
        pid = reader.exec_driver_sql(
            "SELECT pg_backend_pid() FROM (SELECT count(*) FROM shop_things) AS things"
        ).scalar()
        upgrading = upgrade()
        wait_for(lambda: shop.ask(WAITING), HANGS)
        assert shop.ask("SELECT count(*) FROM shop_things") == 0  # behind the migration, which lets go
        wait_for(lambda: caplog.messages, HANGS)
        assert not upgrading.done()
    assert [info.revision for info in upgrading.result(HANGS)] == ["shop2"]
    (line,) = caplog.messages
    assert f"slow report (pid {pid}, shop_things for " in line


@postgresql
def test_a_revision_that_committed_by_itself_waits_as_it_cannot_run_again(shop: Shop, upgrade: Start) -> None:
    add_revision(shop.line, 2, INDEX + ADD)
    waits_long = f"{WAITING} AND clock_timestamp() - query_start > interval '1.5 s'"
    with shop.engine.connect() as reader:
        reader.exec_driver_sql("BEGIN ISOLATION LEVEL READ COMMITTED")
        reader.exec_driver_sql("SELECT count(*) FROM shop_things")
        upgrading = upgrade()
        wait_for(lambda: shop.ask(waits_long), HANGS)
    assert [info.revision for info in upgrading.result(HANGS)] == ["shop2"]
    assert shop.ask("SELECT indisvalid FROM pg_index WHERE indexrelid = 'ix_shop_things_id'::regclass")


@postgresql
def test_an_index_is_built_concurrently_while_others_wait_to_migrate(
    shop: Shop, upgrade: Start, caplog: pytest.LogCaptureFixture
) -> None:
    add_revision(shop.line, 2, INDEX)
    with connected(shop.migrations.url) as connection:
        others = [upgrade() for _ in range(3)]
        wait_for(lambda: len(caplog.messages) == len(others), HANGS)
        connection.exec_driver_sql(f"SET statement_timeout = {HANGS * 1000}")
        connection.commit()
        shop.migrations.run(connection, shop.line, shop.migrations.ahead(connection, shop.line), "head")
    assert [other.result(HANGS) for other in others] == [[], [], []]
    assert set(caplog.messages) == {"Another process is migrating this database. Waiting for it."}


@postgresql
def test_the_lock_ends_with_the_connection_that_has_it(
    shop: Shop, upgrade: Start, caplog: pytest.LogCaptureFixture
) -> None:
    ours = "SELECT oid FROM pg_database WHERE datname = current_database()"
    ended = f"SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND database = ({ours})"
    add_revision(shop.line, 2, ADD)
    with connected(shop.migrations.url):
        waiting = upgrade()
        shop.ask(ended)
        assert [info.revision for info in waiting.result(HANGS)] == ["shop2"]
    assert caplog.messages[-1] == "The lock of this migration was lost before its end: another may have run beside it."


@pytest.mark.skipif(SERVED, reason="on SQLite the file is locked")
def test_a_file_that_another_process_writes_to_is_waited_for(
    shop: Shop, upgrade: Start, caplog: pytest.LogCaptureFixture
) -> None:
    add_revision(shop.line, 2, ADD)
    with closing(sqlite3.connect(str(shop.migrations.url.database), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        upgrading = upgrade()
        wait_for(lambda: caplog.messages, HANGS)
        other.execute("ROLLBACK")
    assert [info.revision for info in upgrading.result(HANGS)] == ["shop2"]
    assert set(caplog.messages) == {"Another process is writing to this database. Waiting for it."}
