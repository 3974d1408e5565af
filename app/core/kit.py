"""Services for installed packages, which do not import `app`: `app.state.kit`."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast, get_args

from fastapi import Depends, Request, Response
from pydantic import BaseModel, create_model

from app.core.api.list_queries import ListParamsBuilder
from app.core.api.responses import PaginatedResponse
from app.core.configs import AppConfig
from app.core.db import BaseRepository, FilterParam, ListParams, SortParam, session_scope
from app.core.deps import DBSession, db_session
from app.core.exceptions import ConfigError
from app.core.modules import installed_modules
from app.core.services.cache import CacheServiceInterface
from app.core.services.cache.interface import current_cache
from app.core.services.events.interface import current_events, listeners
from app.core.services.log import logger
from app.core.services.mail import BaseTemplate, EmailData
from app.core.services.mail.interface import current_mail
from app.core.services.queue.interface import current_queue
from app.core.services.queue.registry import tasks

S = TypeVar("S", bound=BaseModel)


@dataclass(frozen=True)
class KitSettings:
    """The settings that concern a package; none is a secret."""

    project_name: str
    environment: str
    domain: str
    frontend_url: str
    api_prefix: str


class ViewMail(BaseTemplate):
    """A mail whose view lies in a package."""

    view: Path
    values: dict[str, Any]

    def _get_dir(self) -> Path:
        return self.view.parent

    def _get_name(self) -> str:
        return self.view.name

    def context(self) -> dict[str, Any]:
        return self.values


class Kit:
    """Services for installed packages.

    `db_session` and `active_user` are dependencies: `Depends(kit.db_session, scope="function")`.
    """

    logger = logger
    db_session = staticmethod(db_session)
    """The request's unit of work: read-only for GET and HEAD, committed before the answer leaves."""
    session_scope = staticmethod(session_scope)

    def __init__(self, settings: AppConfig) -> None:
        self.settings = KitSettings(
            settings.PROJECT_NAME,
            settings.ENVIRONMENT.value,
            settings.DOMAIN,
            str(settings.FRONTEND_URL),
            settings.API_V1_STR,
        )

    @property
    def active_user(self) -> Callable[..., Any]:
        """The user who sent the request, with `id`, `email` and `username`; everybody else gets a 401 or a 403.

        It is what the dependency `ActiveUser` of an installed module stands for.
        """
        for module in installed_modules():
            found = None if module.external else getattr(module.root, "ActiveUser", None)
            for item in get_args(found)[1:]:
                if dependency := getattr(item, "dependency", None):
                    return dependency  # type: ignore[no-any-return]  # what `Depends` was given
        raise ConfigError("kit.active_user: no installed module offers ActiveUser: add app.auth to MODULES")

    def cache(self, namespace: str) -> CacheServiceInterface:
        """The cache, every key below `namespace`, which is the package's name."""
        return cast(CacheServiceInterface, _LateCache(namespace))

    async def push(self, task: str, data: Mapping[str, Any] | None = None, *, durable: bool = True) -> int | None:
        """Store a run of the task called `task` with the current unit of work; LookupError where there is none."""
        return await current_queue().push(tasks.get(task).cls, data, durable=durable)

    def dispatch(self, event: str, data: Mapping[str, Any]) -> None:
        """Tell the listeners of every event class whose `__event_name__` is `event`; without one nothing happens."""
        for kind in listeners.events(event):
            current_events().dispatch(kind.model_validate(data))

    async def send_mail(self, *, to: Sequence[str], subject: str, view: Path, values: Mapping[str, Any]) -> None:
        """Queue a mail with the current unit of work; `view` is a Jinja2 file that shows `values`, never a secret."""
        envelope = EmailData(subject=subject, recipients=list(to))
        await current_mail().queue(ViewMail(view=view, values=dict(values)), envelope)

    def list_of(
        self, model: type[Any], schema: type[S], *, sort: Sequence[str], filters: Sequence[str]
    ) -> Callable[..., Awaitable[PaginatedResponse[S]]]:
        """A dependency that answers a list query with a page of `model`, which has a column `id`.

        `schema` names the columns to show, `sort` and `filters` those that may be asked for.
        """
        name = model.__name__
        params: type[ListParams] = type(f"{name}ListParams", (ListParams,), {"model": model, "__module__": __name__})
        builder = ListParamsBuilder(
            params,
            create_model(f"{name}SortParam", __base__=SortParam, field=(_one_of(sort), ...)),
            create_model(f"{name}FilterParam", __base__=FilterParam, field=(_one_of(filters), ...)),
        )
        repository: BaseRepository[Any] = type(f"{name}Repository", (BaseRepository,), {"model": model})()

        async def page(
            request: Request, response: Response, db: DBSession, asked: Annotated[ListParams, Depends(builder)]
        ) -> PaginatedResponse[S]:
            found = await repository.get_list(db=db, params=asked, into=schema)
            return PaginatedResponse.of(found, request, response)

        return page

    def page_of(self, schema: type[BaseModel]) -> type[BaseModel]:
        """The answer of such a list, as a `response_model`."""
        return PaginatedResponse[schema]  # type: ignore[valid-type]  # known when it runs only


class _LateCache:
    """Looks the cache up at each use: packages ask for theirs before anything is open."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace

    def __getattr__(self, name: str) -> Any:
        return getattr(current_cache().namespace(self._namespace), name)


def _one_of(names: Sequence[str]) -> Any:
    return Literal[tuple(names)]  # a Literal is what declares the fields of a list
