"""What those see who run the service: its mails, its log, its database and its Redis."""

from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from email.message import EmailMessage
from typing import Any, cast

from redis import Redis
from sqlalchemy import Engine, NullPool, and_, create_engine, func, inspect, or_, select, text
from sqlalchemy.engine import URL

from app.core.db.jobs import Job, JobStatus
from tests.utils import CapturedMail


def synchronous(url: URL) -> Engine:
    """An engine for a look into the database."""
    driver = "sqlite" if url.get_backend_name() == "sqlite" else "postgresql+psycopg"
    return create_engine(url.set(drivername=driver), poolclass=NullPool)


class Stores:
    """The inside of one service."""

    def __init__(
        self,
        *,
        database: URL,
        redis: tuple[str, str] | None,
        mail: CapturedMail,
        log: Callable[[], str],
        jwt_secret: str,
        settle: Callable[[], Awaitable[object]],
    ) -> None:
        self.jwt_secret = jwt_secret
        self._engine = synchronous(database)
        self._redis = redis
        self._mail = mail
        self._log = log
        self._settle = settle

    async def settle(self) -> None:
        """Until every job that is due has run."""
        await self._settle()

    def mails(self) -> list[EmailMessage]:
        """Every captured mail, oldest first."""
        return self._mail.messages()

    def stored(self) -> Iterator[tuple[str, str]]:
        """Lines of the log; headers of mails and their URLs up to the fragment; every column of every row; Redis."""
        yield from (("log", line) for line in self._log().splitlines())
        for mail in self.mails():
            yield from (("headers of mails", str(value)) for value in mail.values())
            for part in mail.walk():
                if part.get_content_maintype() == "text":
                    content = str(part.get_content())
                    urls = (word.split("#")[0] for word in content.replace('"', " ").split() if "://" in word)
                    yield from (("URLs in mails", url) for url in urls)
        yield from self._rows()
        if self._redis:
            yield from (("Redis", value) for value in redis_values(*self._redis))

    def _rows(self) -> Iterator[tuple[str, str]]:
        with self._engine.connect() as connection:
            for table in inspect(connection).get_table_names():
                quoted = connection.dialect.identifier_preparer.quote(table)
                for row in connection.execute(text(f"SELECT * FROM {quoted}")).mappings():
                    yield from ((f"{table}.{column}", str(value)) for column, value in row.items())


def redis_values(url: str, prefix: str) -> Iterator[str]:
    """Keys and values, of every type."""
    with Redis.from_url(url, socket_timeout=10) as redis:
        readers: dict[bytes, Callable[[bytes], Any]] = {
            b"string": redis.get,
            b"hash": redis.hgetall,
            b"list": lambda key: redis.lrange(key, 0, -1),
            b"set": redis.smembers,
            b"zset": lambda key: redis.zrange(key, 0, -1),
            b"stream": redis.xrange,
        }
        for key in redis.scan_iter(f"{prefix}*"):
            yield key.decode(errors="replace")
            kind = cast("bytes", redis.type(key))
            if kind in readers:
                yield _text(readers[kind](key))


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def unfinished_jobs(database: URL) -> int:
    """How many jobs run or are due; what is for later is not waited for."""
    due = and_(Job.status == JobStatus.PENDING, Job.available_at <= datetime.now(UTC))
    with synchronous(database).connect() as connection:
        query = select(func.count()).select_from(Job).where(or_(Job.status == JobStatus.PROCESSING, due))
        return int(connection.execute(query).scalar_one())
