"""`kit run`, `kit ready` and `kit secrets`."""

import errno
import http.client
import os
import socket
import sys
from secrets import token_urlsafe
from typing import TYPE_CHECKING, Annotated

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
from app.cli.migrate import migrations_of

if TYPE_CHECKING:
    from app.core.configs import AppConfig


def run(
    reload: Annotated[bool, typer.Option("--reload", help="Start again whenever the code changes.")] = False,
) -> None:
    """Migrate, make the first admin, and serve the API."""
    settings = load_settings()
    _ = settings.secret_key  # made once under VAR_DIR where development leaves it unset
    listener = listen(settings.HOST, settings.PORT)
    if settings.METRICS_ENABLED and settings.METRICS_PORT:
        listen(settings.METRICS_HOST, settings.METRICS_PORT, "METRICS_PORT").close()  # bound by the server processes
    import app.main  # noqa: F401  what cannot be served is refused before anything is listening to
    from app.core.services.log import configure_logging

    configure_logging(settings)
    load_registries()
    migrations = migrations_of(settings)
    for line in migrations.timelines.values():
        migrations.scripts(line)  # what cannot be read need not wait for the database
    if not _serve(settings, listener, reload):
        raise typer.Exit(1)
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


def listen(host: str, port: int, setting: str = "PORT") -> socket.socket:
    """Open a listening socket; ends the program where the address is not available.

    It listens from here on, so that a second start sees the port in use before it touches the database.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as exc:
        if exc.errno == errno.EADDRINUSE:
            other = port % 65535 + 1
            fail(f"Port {port} on {host} is in use. Stop what uses it, or choose another: {setting}={other} make run")
        fail(f"Cannot listen on {host} port {port}: {exc.strerror}. Check its host and {setting}.")
    listener.set_inheritable(True)
    return listener


def _serve(settings: "AppConfig", listener: socket.socket, reload: bool) -> bool:
    """Serve until told to stop; False if a server process failed."""
    import uvicorn

    from app.cli.server import Reload, Server, supervise
    from app.cli.serving import Connection
    from app.core.configs import PROJECT_ROOT
    from app.core.metrics import shared_between_processes
    from app.main import KIT_RUN

    config = uvicorn.Config(
        "app.main:app",
        loop="uvloop",
        http=Connection,
        lifespan="off",  # the server opens the application itself
        log_config=None,
        log_level="warning",
        access_log=False,  # the application writes its own
        proxy_headers=False,  # uvicorn's default believes 127.0.0.1; TRUSTED_PROXIES decides
        server_header=False,
        reload=reload,
        reload_dirs=[str(PROJECT_ROOT / "app")] if reload else None,
    )
    os.environ[KIT_RUN] = "1"
    server = Server(config, settings, quiet=is_quiet())
    if not reload and settings.WEB_CONCURRENCY > 1:
        with shared_between_processes(settings):
            return supervise(server, settings.WEB_CONCURRENCY, listener)
    if reload:
        Reload(server, listener).run()
    else:
        server.run([listener])
    return True


def answers(host: str, port: int, path: str = "/health/ready") -> bool:
    """True if the server at this address says that it is ready."""
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
