"""`kit run`, `kit ready` and `kit secrets`."""

import asyncio
import errno
import http.client
import os
import signal
import socket
import sys
import threading
import time
from secrets import token_urlsafe
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from app.cli.console import (
    fail,
    is_quiet,
    load_registries,
    load_settings,
    say,
    settings_errors,
    show_json,
    with_runtime,
)
from app.cli.migrate import opened_migrations

if TYPE_CHECKING:
    from app.core.configs import AppConfig
    from app.core.runtime import Runtime

ANNOUNCE_SECONDS = 60.0


def run(
    reload: Annotated[bool, typer.Option("--reload", help="Start again whenever the code changes.")] = False,
) -> None:
    """Migrate, make the first admin, and serve the API."""
    settings = load_settings()
    _ = settings.secret_key  # made once under VAR_DIR where development leaves it unset
    listener = listen(settings.HOST, settings.PORT)
    import app.main  # noqa: F401  the server's own import would tell its errors in a traceback
    from app.core.services.log import configure_logging

    migrations = opened_migrations()  # before: loading the settings can send the log to the standard error
    configure_logging(settings)
    migrations.upgrade()
    load_registries()
    news = asyncio.run(_bootstrap(settings))
    threading.Thread(target=_announce, args=(settings, listener, news, is_quiet()), daemon=True).start()
    try:
        _serve(settings, listener, reload)
    except KeyboardInterrupt:
        typer.echo("Stopped.", err=True)


def ready() -> None:
    """Ask whether the database answers and is migrated, and Redis answers; the health check of workers.

    Redis being away is `degraded` with exit code 0, as everything goes on without it.
    """
    load_settings()
    from app.core.api.health import examine

    found = with_runtime(lambda _: examine())
    failed = ", ".join(found.failed)
    if found.status == "unavailable":
        fail(f"Not ready: {failed}.{'' if 'database' in found.failed else ' Run `kit migrate`.'}")
    say(f"Ready, but degraded: {failed}." if failed else "Everything answers.")


def secrets(as_json: Annotated[bool, typer.Option("--json", help="JSON for programs.")] = False) -> None:
    """Print a fresh value for every secret that the settings need, as lines for .env; writes nothing."""
    with settings_errors():
        from app.core.configs import BaseConfig
        from app.core.modules import parts

        list(parts("config"))
    values = {name: token_urlsafe(48) for config in BaseConfig.known for name in config.required_secrets}
    if as_json:
        show_json(values)
        return
    for name, value in values.items():
        typer.echo(f"{name}={value}")
    if sys.stdout.isatty():
        typer.secho("Nothing is stored. To keep such values: kit secrets >> .env", dim=True, err=True)


async def _bootstrap(settings: "AppConfig") -> list[str]:
    """Run the bootstrap of every module; return the lines to show once."""
    from app.core.modules import parts
    from app.core.runtime import open_runtime

    async with open_runtime(settings, run_jobs=False) as opened:
        news = [line for part in parts("bootstrap") for line in await part.bootstrap()]
        return [*news, *await _shared_prefix(opened)]


async def _shared_prefix(opened: "Runtime") -> list[str]:
    """Claim an explicit `REDIS_KEY_PREFIX`; return a line if another installation had claimed it."""
    from redis.exceptions import RedisError

    from app.core.db.installation import other_owner

    prefix = opened.settings.REDIS_KEY_PREFIX
    if opened.redis is None or prefix is None:
        return []
    try:
        other = await other_owner(opened.redis, prefix, opened.database)
    except RedisError:
        return []
    return [f"Installation {other} used REDIS_KEY_PREFIX={prefix} before: see kit doctor."] if other else []


def listen(host: str, port: int) -> socket.socket:
    """Open a listening socket; ends the program where the address is not available.

    It listens from here on, so that a second start sees the port in use before it touches the database.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as exc:
        if exc.errno == errno.EADDRINUSE:
            other = port % 65535 + 1
            fail(f"Port {port} on {host} is in use. Stop what uses it, or choose another: PORT={other} make run")
        fail(f"Cannot listen on {host} port {port}: {exc.strerror}. Check HOST and PORT.")
    listener.set_inheritable(True)
    return listener


def _serve(settings: "AppConfig", listener: socket.socket, reload: bool) -> None:
    import uvicorn
    from uvicorn.supervisors import ChangeReload, Multiprocess

    from app.cli.serving import Connection, Server
    from app.core.configs import PROJECT_ROOT
    from app.main import KIT_RUN

    config = uvicorn.Config(
        "app.main:app",
        loop="uvloop",
        http=Connection,
        lifespan="on",
        log_config=None,
        log_level="warning",
        access_log=False,  # the application writes its own
        proxy_headers=False,  # uvicorn's default believes 127.0.0.1; TRUSTED_PROXIES decides
        server_header=False,
        timeout_graceful_shutdown=settings.SHUTDOWN_GRACE_SECONDS,
        workers=1 if reload else settings.WEB_CONCURRENCY,
        reload=reload,
        reload_dirs=[str(PROJECT_ROOT / "app")] if reload else None,
    )
    server = Server(config)
    os.environ[KIT_RUN] = "1"
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # uvicorn raises it again when all is done: that is 0
    if reload:
        ChangeReload(config, target=server.run, sockets=[listener]).run()
    elif config.workers > 1:
        Multiprocess(config, sockets=[listener]).run()
    else:
        server.run(sockets=[listener])


def _announce(settings: "AppConfig", listener: socket.socket, news: list[str], quiet: bool) -> None:
    """Print the addresses once the service answers; if `quiet`, only what is shown once."""
    host, port = listener.getsockname()[:2]
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  compared, not bound
    give_up = time.monotonic() + ANNOUNCE_SECONDS
    while not answers(reachable, port):
        if time.monotonic() > give_up:
            return
        time.sleep(0.05)
    # Elsewhere the standard output belongs to the log.
    lines = news if quiet else _welcome(settings, reachable, port, news)
    typer.echo("\n".join(lines), nl=bool(lines), err=not settings.is_relaxed)


def answers(host: str, port: int, path: str = "/health/live") -> bool:
    """True if the server at this address says that it is alive."""
    from app.core.api.middlewares import START_PROBE

    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request("GET", path, headers={"User-Agent": START_PROBE.decode()})
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _welcome(settings: "AppConfig", host: str, port: int, news: list[str]) -> list[str]:
    base = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    title = f"{settings.PROJECT_NAME} is running ({settings.ENVIRONMENT})"
    lines = ["", typer.style(title, fg=typer.colors.GREEN, bold=True), f"  API    {base}{settings.API_V1_STR}"]
    if settings.docs_enabled:
        lines.append(f"  Docs   {base}/docs")
    if settings.captures_mail:
        lines.append(f"  Mail   {settings.mail_dir} (captured; SMTP_HOST sends it)")
    lines += [f"  {name:<5}  {what}" for name, what in _stores(settings).items()]
    lines += [typer.style(f"  {line}", fg=typer.colors.YELLOW) for line in news]
    return [*lines, "  Stop with Ctrl-C.", ""]


def _stores(settings: "AppConfig") -> dict[str, str]:
    """The places of data, cache and jobs, without passwords."""
    url = settings.database_url
    if url.get_backend_name() == "sqlite":
        database = f"SQLite {url.database}"
    else:
        database = f"PostgreSQL {url.database} on {url.host or 'this machine'}:{url.port or 5432}"
    redis = urlsplit(settings.redis_url or "")
    place = f"{redis.hostname}:{redis.port or 6379}{redis.path}" if redis.hostname else redis.path
    return {
        "Data": database,
        "Redis": place or "none: cache and limits are in this process",
        "Jobs": "run here" if settings.worker_in_app else "run by kit worker and kit scheduler",
    }
