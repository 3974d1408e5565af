"""The application factory: everything HTTP is wired here and nowhere else."""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import FastAPI
from starlette.middleware.gzip import GZipMiddleware
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from app.core.api import health
from app.core.api.cors import CrossOrigin
from app.core.api.docs import DOCUMENT, PAGE, add_docs, add_index
from app.core.api.errors import ErrorBoundary, add_error_handlers
from app.core.api.input_guard import MAX_FORM_FIELDS, InputGuard
from app.core.api.middlewares import AccessLog, CorrelationIds, SecurityHeaders
from app.core.api.openapi import DESCRIPTION, DocumentedAPI, operation_id, operation_id_v2
from app.core.api.route_checks import check_units, warn_about_routes
from app.core.api.routes import route_table
from app.core.configs import AppConfig, check_settings, get_settings, unknown_env_keys
from app.core.modules import declared_permissions, installed_modules, offered_authenticators, parts
from app.core.modules.registration import module_lifespans, register_modules
from app.core.services.log import configure_logging, logger
from app.core.services.providers import check_providers

KIT_RUN = "KIT_RUN"
"""Environment variable that `kit run` sets for its server processes."""


def create_app(settings: AppConfig | None = None, *, run_jobs: bool | None = None) -> FastAPI:
    """Build the service; nothing is opened before its lifespan starts.

    `run_jobs` overrides whether jobs run in this process.
    """
    chosen = settings or get_settings()
    list(parts("config"))  # a check of the settings sees those of every module
    check_settings()
    check_providers(chosen)
    configure_logging(chosen)
    for message in unknown_env_keys():
        logger.warning(message)

    app = DocumentedAPI(
        title=chosen.PROJECT_NAME,
        version="1",
        lifespan=_lifespan(chosen, chosen.worker_in_app if run_jobs is None else run_jobs),
        description=DESCRIPTION,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # a redirect would repeat the Host header of whoever asks
        generate_unique_id_function=operation_id,
        form_limits={"max_fields": MAX_FORM_FIELDS},
    )
    app.modules = {module.name: module.short_name for module in installed_modules()}
    app.base_path = chosen.ROOT_PATH or ""
    if settings is not None:
        app.dependency_overrides[get_settings] = lambda: settings
    app.authenticators = offered_authenticators()
    app.permissions = declared_permissions()
    _add_middlewares(app, chosen)
    add_error_handlers(app)
    app.include_router(health.router)
    if chosen.METRICS_ENABLED and chosen.METRICS_PORT is None:
        from app.core.exporter import router  # needs an extra

        app.include_router(router)
    _include_modules(app, chosen)
    if chosen.docs_enabled:
        add_docs(app)
    register_modules(app, installed_modules(), chosen.API_V1_STR)
    add_index(app, _links(chosen))
    check_units(app.routes)
    return app


def _links(settings: AppConfig) -> dict[str, str]:
    links = {"api": settings.API_V1_STR, "health": "/health"}
    return links | {"docs": PAGE, "openapi": DOCUMENT} if settings.docs_enabled else links


def _include_modules(app: FastAPI, settings: AppConfig) -> None:
    # After the settings check: importing a module may read them.
    from app.core.kit import Kit
    from app.core.routers import routers_v1, routers_v2

    # Each into the app itself: a level of routers costs every request 20 to 40 microseconds.
    for router in routers_v1:
        app.include_router(router, prefix=settings.API_V1_STR)
    for router in routers_v2:
        app.include_router(router, prefix=settings.API_V2_STR, generate_unique_id_function=operation_id_v2)
    app.state.kit = Kit(settings)


def _add_middlewares(app: FastAPI, settings: AppConfig) -> None:
    """Add the middlewares from the inside out: the last one added sees a request first."""
    app.add_middleware(InputGuard, max_body_size=settings.MAX_BODY_SIZE)
    app.add_middleware(health.StartGate)
    app.add_middleware(ErrorBoundary)
    app.add_middleware(GZipMiddleware, minimum_size=1024)  # token answers are smaller: no BREACH
    if settings.BACKEND_CORS_ORIGINS:
        app.add_middleware(CrossOrigin, routes_of=app, settings=settings)
    app.state.content_policies = {}
    app.add_middleware(SecurityHeaders, hsts=not settings.is_relaxed, policies=app.state.content_policies)
    app.add_middleware(AccessLog, routes=route_table(app))
    app.add_middleware(CorrelationIds, cookie=settings.CONVERSATION_COOKIE, secure=not settings.is_relaxed)
    if settings.TRUSTED_PROXIES:
        app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=settings.TRUSTED_PROXIES)


def warn_of_other_servers(settings: AppConfig) -> None:
    """Warn once, outside development, if this is not served by `kit run`, which limits more than other servers do."""
    if not settings.is_relaxed and KIT_RUN not in os.environ:
        logger.warning("not served by `kit run`: header sections are not limited; docs/deployment.md names the rest")


def _lifespan(settings: AppConfig, run_jobs: bool) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        from app.core.runtime import exporting, open_runtime

        check_units(app.routes)
        async with (
            open_runtime(settings, run_jobs=run_jobs),
            exporting(settings),
            module_lifespans(app, installed_modules()),
        ):
            warn_about_routes(app.routes)
            warn_of_other_servers(settings)
            yield

    return lifespan


app = create_app()
