"""The database and the stores a test run uses: made for this run alone, gone when it ends.

`TEST_BACKEND=embedded` is SQLite and in-process stores. `TEST_BACKEND=served` is the PostgreSQL server and the
Redis that `TEST_DATABASE_URL` and `TEST_REDIS_URL` name; databases get names of their own, keys a prefix of their own.
"""

import itertools
import os
import shutil
import tempfile
from abc import ABC, abstractmethod
from pathlib import Path

import psycopg
from dotenv import dotenv_values
from psycopg import sql
from redis import Redis
from sqlalchemy.engine import URL, make_url


class Backend(ABC):
    """One migrated template and the copies made of it."""

    name: str

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="kit-tests-"))
        self.numbers = itertools.count(1)

    @property
    @abstractmethod
    def template(self) -> URL:
        """The database that is migrated once."""

    @abstractmethod
    def copy(self) -> URL:
        """A fresh copy of the template."""

    @abstractmethod
    def empty(self) -> URL:
        """A database without a table."""

    @abstractmethod
    def drop(self, url: URL) -> None:
        """Take a copy back: nobody is connected to it any longer."""

    def environment(self) -> dict[str, str]:
        """The settings this backend needs, on top of `.test.env`. What else is in the environment must not count."""
        return {
            **dict.fromkeys(dotenv_values(Path(__file__).parents[1] / ".sample.env"), ""),
            "ENV_FILE": "",
            "ENVIRONMENT": "testing",
            "VAR_DIR": str(self.folder / "var"),
            "DATABASE_URL": self.template.render_as_string(hide_password=False),
            "REDIS_URL": "",
            "REDIS_KEY_PREFIX": f"kit-test-{os.getpid()}:",
        }

    def close(self) -> None:
        """Remove everything this run made."""
        shutil.rmtree(self.folder, ignore_errors=True)


class Embedded(Backend):
    """SQLite files in a temporary folder, stores in process."""

    name = "embedded: SQLite, in-process cache, limiter and queue"

    @property
    def template(self) -> URL:
        return URL.create("sqlite+aiosqlite", database=str(self.folder / "template.db"))

    def copy(self) -> URL:
        url = self.empty()
        shutil.copyfile(str(self.template.database), str(url.database))
        return url

    def empty(self) -> URL:
        path = self.folder / f"copy{next(self.numbers)}.db"
        return URL.create("sqlite+aiosqlite", database=str(path))

    def drop(self, url: URL) -> None:
        for suffix in ("", "-wal", "-shm"):
            Path(f"{url.database}{suffix}").unlink(missing_ok=True)


_DEFINED = """
SELECT sum(hashtext(ctid::text || xmin::text)) FROM (
    SELECT ctid, xmin FROM pg_attribute UNION ALL SELECT ctid, xmin FROM pg_constraint
    UNION ALL SELECT ctid, xmin FROM pg_proc UNION ALL SELECT ctid, xmin FROM pg_trigger
) AS definitions
"""
"""Differs once anything was created, altered or dropped: a copy has the very rows of its template."""
_MIGRATED = "SELECT sum(hashtext(ctid::text || xmin::text)) FROM alembic_version"
_SMALL = "SELECT sum(pg_relation_size(oid)) < 1000000 FROM pg_class WHERE relnamespace = 'public'::regnamespace"
"""Rows that were deleted slow down who comes after: they stay in tables and indexes."""
_STATE = (_DEFINED, _MIGRATED, _SMALL)
_TABLES = """
SELECT relname FROM pg_class
WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname <> 'alembic_version' ORDER BY oid
"""
"""Oldest first: a row is inserted after those it refers to."""
_SEQUENCES = "SELECT sequencename, last_value FROM pg_sequences WHERE schemaname = 'public'"


class Served(Backend):
    """PostgreSQL and Redis; the template is a database that copies are made of.

    A copy whose schema is still that of the template gets its few rows again, and is used again. To drop a database, or
    to truncate its tables, waits for the disk, up to a second each; to delete a few rows takes milliseconds.
    """

    name = "served: PostgreSQL, Redis"

    def __init__(self, database_url: str, redis_url: str) -> None:
        super().__init__()
        self.server = make_url(database_url).set(drivername="postgresql+psycopg")
        self.redis_url = redis_url
        self._unused: list[URL] = []
        self._pristine: list[object] = [None] * len(_STATE)
        self._rows: dict[str, list[tuple[object, ...]]] = {}
        self._counted: list[tuple[object, ...]] = []
        self._create(self.template)

    @property
    def template(self) -> URL:
        return self.server.set(database=f"{self.server.database}_{os.getpid()}_template")

    def copy(self) -> URL:
        if self._unused:
            return self._unused.pop()
        url = self.empty(template=self.template.database)
        with self._connected(url) as connection:
            self._pristine = [connection.execute(query).fetchone() for query in _STATE]
            for (table,) in connection.execute(_TABLES):
                rows = sql.SQL("SELECT * FROM {}").format(sql.Identifier(table))
                self._rows[table] = connection.execute(rows).fetchall()
            self._counted = connection.execute(_SEQUENCES).fetchall()
        return url

    def empty(self, template: str | None = None) -> URL:
        url = self.server.set(database=f"{self.server.database}_{os.getpid()}_{next(self.numbers)}")
        self._create(url, template)
        return url

    def drop(self, url: URL) -> None:
        ended = "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE datname = {} AND backend_type = {}"
        self._admin(sql.SQL(ended).format(sql.Literal(url.database), sql.Literal("client backend")))
        if self._emptied(url):
            self._unused.append(url)
        else:
            self._remove(url)

    def environment(self) -> dict[str, str]:
        return super().environment() | {"REDIS_URL": self.redis_url}

    def close(self) -> None:
        super().close()
        for url in (*self._unused, self.template):
            self._remove(url)
        with Redis.from_url(self.redis_url, socket_timeout=5) as redis:
            for key in redis.scan_iter(f"{self.environment()['REDIS_KEY_PREFIX']}*"):
                redis.delete(key)

    def _emptied(self, url: URL) -> bool:
        """True if the copy is as it was made again; False where more than rows of its tables has changed."""
        with self._connected(url) as connection:
            for query, pristine in zip(_STATE, self._pristine, strict=True):
                if connection.execute(query).fetchone() != pristine:  # the first also sees that the table is gone
                    return False
            deleted = (sql.SQL("{0} AS (DELETE FROM {0})").format(sql.Identifier(table)) for table in self._rows)
            connection.execute("SET LOCAL synchronous_commit = off")
            # One statement: foreign keys are checked at its end, whatever the order.
            connection.execute(sql.SQL("WITH {} SELECT").format(sql.SQL(", ").join(deleted)))
            for table, rows in self._rows.items():
                for row in rows:
                    values = sql.SQL(", ").join([sql.Placeholder()] * len(row))
                    connection.execute(sql.SQL("INSERT INTO {} VALUES ({})").format(sql.Identifier(table), values), row)
            for sequence, last in self._counted:
                connection.execute("SELECT setval(%s::regclass, %s, %s)", (sequence, last or 1, last is not None))
        return True

    def _remove(self, url: URL) -> None:
        self._admin(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(str(url.database))))

    def _create(self, url: URL, template: str | None = None) -> None:
        self._remove(url)
        self._admin(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                sql.Identifier(str(url.database)), sql.Identifier(template or "template0")
            )
        )

    def _admin(self, statement: sql.Composed) -> None:
        with self._connected(self.server.set(database="postgres"), autocommit=True) as connection:
            connection.execute(statement)

    def _connected(self, url: URL, *, autocommit: bool = False) -> psycopg.Connection:
        address = url.set(drivername="postgresql").render_as_string(hide_password=False)
        return psycopg.connect(address, autocommit=autocommit)


def choose() -> Backend:
    """The backend that `TEST_BACKEND` names."""
    if os.environ.get("TEST_BACKEND", "embedded") == "embedded":
        return Embedded()
    return Served(os.environ["TEST_DATABASE_URL"], os.environ["TEST_REDIS_URL"])
