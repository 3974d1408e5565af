"""What the service offers to packages as `app.state.kit`: its types, to be copied into each."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol

from fastapi.requests import HTTPConnection
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession


class User(Protocol):
    """Who sent the request."""

    @property
    def id(self) -> int: ...
    @property
    def email(self) -> str: ...
    @property
    def username(self) -> str: ...


class Settings(Protocol):
    """What is configured."""

    @property
    def project_name(self) -> str: ...
    @property
    def environment(self) -> str: ...
    @property
    def domain(self) -> str: ...
    @property
    def frontend_url(self) -> str: ...
    @property
    def api_prefix(self) -> str: ...


class Cache(Protocol):
    """Values that may vanish at any time; they are kept as JSON."""

    async def get(self, key: str) -> Any | None: ...
    async def set(self, key: str, value: Any, *, ttl: float | None = None) -> None: ...
    async def delete(self, *keys: str) -> None: ...


class Kit(Protocol):
    """The service. Leave out of the copy what the package does not use."""

    @property
    def settings(self) -> Settings: ...

    @property
    def logger(self) -> Any: ...

    @property
    def active_user(self) -> Callable[..., Any]:
        """A dependency: the `User`; others get a 401 or a 403."""

    def db_session(self, connection: HTTPConnection) -> AsyncIterator[AsyncSession]:
        """A dependency, of scope "function": the request's unit of work, committed before the answer leaves."""

    def session_scope(self, *, read_only: bool = False) -> AbstractAsyncContextManager[AsyncSession]:
        """A unit of work outside a request."""

    def cache(self, namespace: str) -> Cache: ...

    async def push(self, task: str, data: Mapping[str, Any] | None = None, *, durable: bool = True) -> int | None:
        """Run a task of the service after the commit."""

    def dispatch(self, event: str, data: Mapping[str, Any]) -> None:
        """Tell the service after the commit."""

    async def send_mail(self, *, to: Sequence[str], subject: str, view: Path, values: Mapping[str, Any]) -> None:
        """Send a mail after the commit; `view` is a Jinja2 file."""

    def list_of(
        self, model: type[Any], schema: type[BaseModel], *, sort: Sequence[str], filters: Sequence[str]
    ) -> Callable[..., Any]:
        """A dependency: a page of the list that the query asks for."""

    def page_of(self, schema: type[BaseModel]) -> type[BaseModel]:
        """Its response model."""
