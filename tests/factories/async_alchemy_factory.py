"""factory-boy for asynchronous SQLAlchemy: the object graph is built synchronously, then stored at once."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import factory
from sqlalchemy.ext.asyncio import AsyncSession

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


class AsyncSQLAlchemyModelFactory(factory.Factory[T]):
    """Base of the factories: `await UserFactory.create(...)`, `await UserFactory.create_batch(3)`.

    What is created is committed, so that requests see it (under `db` into a transaction that is rolled back).
    """

    class Meta:
        abstract = True

    @classmethod
    def _create(cls, model_class: type[T], *args: Any, **kwargs: Any) -> T:
        instance = model_class(*args, **kwargs)  # sub-factories land here too
        _current_session().add(instance)
        return instance

    @classmethod
    async def create(cls, **kwargs: Any) -> T:  # type: ignore[override]  # asynchronous here
        """Store and give back one instance."""
        instance: T = super().create(**kwargs)
        await _current_session().commit()
        return instance

    @classmethod
    async def create_batch(cls, size: int, **kwargs: Any) -> list[T]:  # type: ignore[override]  # as above
        """Store and give back `size` instances."""
        instances: list[T] = [super(AsyncSQLAlchemyModelFactory, cls).create(**kwargs) for _ in range(size)]
        await _current_session().commit()
        return instances
