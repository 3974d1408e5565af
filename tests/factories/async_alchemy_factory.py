"""factory-boy for asynchronous SQLAlchemy: its synchronous work runs in `AsyncSession.run_sync`."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from factory.alchemy import SQLAlchemyModelFactory
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

T = TypeVar("T")

_session: AsyncSession | None = None


@contextmanager
def use_session(session: AsyncSession) -> Iterator[None]:
    """Store what factories make through `session`."""
    global _session  # noqa: PLW0603  a contextvar set by a fixture does not reach the test
    previous, _session = _session, session
    try:
        yield
    finally:
        _session = previous


def _current_session() -> AsyncSession:
    if _session is None:
        raise RuntimeError("a test that uses factories also asks for `db` or `committed`")
    return _session


class AsyncSQLAlchemyModelFactory(SQLAlchemyModelFactory, Generic[T]):
    """Base of the factories: `await UserFactory.create(...)`, `await UserFactory.create_batch(3)`.

    All that factory-boy's SQLAlchemyModelFactory knows works, `sqlalchemy_get_or_create` too. What is created is
    committed, so that requests see it (under `db` into a transaction that is rolled back).
    """

    class Meta:
        abstract = True

        @staticmethod
        def sqlalchemy_session_factory() -> Session:
            """The synchronous half of the test's session."""
            return _current_session().sync_session

    @classmethod
    async def create(cls, **kwargs: Any) -> T:
        """Store and give back one instance."""
        (instance,) = await cls.create_batch(1, **kwargs)
        return instance

    @classmethod
    async def create_batch(cls, size: int, **kwargs: Any) -> list[T]:  # type: ignore[override]  # as above
        """Store and give back `size` instances."""
        make = super().create

        def make_all(_: Session) -> list[T]:  # factory-boy may query and flush in here
            return [make(**kwargs) for _ in range(size)]

        session = _current_session()
        instances = await session.run_sync(make_all)
        await session.commit()
        return instances
