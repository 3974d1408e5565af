"""A kit without a service behind it: a database in memory, one user, everything else a list to look at."""

import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi.requests import HTTPConnection
from pydantic import BaseModel, TypeAdapter, create_model
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.pool import StaticPool

from shop_reviews.models import Base


@dataclass
class StandInUser:
    """Who sends the requests."""

    id: int = 1
    email: str = "ann@example.com"
    username: str = "ann"


@dataclass(frozen=True)
class StandInSettings:
    """What is configured."""

    project_name: str = "Stand-in"
    environment: str = "testing"
    domain: str = "localhost"
    frontend_url: str = "http://localhost"
    api_prefix: str = "/api/v1"


class StandInCache:
    """Keeps JSON."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    async def get(self, key: str) -> Any | None:
        return self.values.get(key)

    async def set(self, key: str, value: Any, *, ttl: float | None = None) -> None:
        self.values[key] = TypeAdapter(Any).dump_python(value, mode="json")

    async def delete(self, *keys: str) -> None:
        for key in keys:
            self.values.pop(key, None)


class StandInKit:
    """A `Kit`."""

    settings = StandInSettings()
    logger = logging.getLogger("standin")

    def __init__(self) -> None:
        self.engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)
        self.user = StandInUser()
        self.caches: dict[str, StandInCache] = {}
        self.sent: list[tuple[str, Any]] = []

    async def prepare(self) -> None:
        """Make the tables."""
        async with self.engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)

    @property
    def active_user(self) -> Callable[[], StandInUser]:
        return lambda: self.user

    async def db_session(self, connection: HTTPConnection) -> AsyncIterator[AsyncSession]:
        async with self.session_scope() as session:
            yield session

    @asynccontextmanager
    async def session_scope(self, *, read_only: bool = False) -> AsyncIterator[AsyncSession]:
        async with AsyncSession(self.engine, expire_on_commit=False) as session, session.begin():
            yield session

    def cache(self, namespace: str) -> StandInCache:
        return self.caches.setdefault(namespace, StandInCache())

    async def push(self, task: str, data: Mapping[str, Any] | None = None, *, durable: bool = True) -> int | None:
        self.sent.append((task, data))
        return len(self.sent)

    def dispatch(self, event: str, data: Mapping[str, Any]) -> None:
        self.sent.append((event, data))

    async def send_mail(self, *, to: Sequence[str], subject: str, view: Path, values: Mapping[str, Any]) -> None:
        self.sent.append((subject, to))

    def list_of(
        self, model: type[Any], schema: type[BaseModel], *, sort: Sequence[str], filters: Sequence[str]
    ) -> Callable[..., Any]:
        async def page() -> Any:
            async with self.session_scope() as session:
                rows = (await session.scalars(select(model).order_by(model.id))).all()
            return {"data": [schema.model_validate(row, from_attributes=True) for row in rows], "meta": {}}

        return page

    def page_of(self, schema: type[BaseModel]) -> type[BaseModel]:
        return create_model(f"{schema.__name__}Page", data=(list[schema], ...), meta=(dict[str, Any], ...))  # type: ignore[valid-type]  # known when it runs only
