"""Checks of the settings, the folder for data, and the application that is built with them."""

import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from fastapi import FastAPI
from starlette.routing import Match

from app.cli.doctor.findings import Finding, fault, ok, reason, skipped, warning
from app.core.api.route_checks import Collision, MisplacedLimit, misplaced_limits, route_collisions
from app.core.configs import BaseConfig, app_config, unknown_env_keys, unsafe_settings
from app.core.configs.base import env_file, shared_secrets

_LOOPBACK = ("localhost", "127.0.0.1", "::1")

# Settings without effect: the names, the setting that decides, and whether they are void when it is set or unset.
_USELESS = (
    (("POSTGRES_SERVER", "POSTGRES_PORT", "POSTGRES_USER", "POSTGRES_PASSWORD", "POSTGRES_DB"), "DATABASE_URL", True),
    (("REDIS_HOST", "REDIS_PORT"), "REDIS_URL", True),
    (("SMTP_PORT", "SMTP_USER", "SMTP_PASSWORD", "SMTP_TLS", "SMTP_SSL"), "SMTP_HOST", False),
)


def settings() -> list[Finding]:
    """Check that the settings are fit for the environment."""
    found = [] if app_config.is_relaxed else [*_unfit(), *_unwise()]
    return found or [ok(f"fit for {app_config.ENVIRONMENT}")]


def _unfit() -> Iterator[Finding]:
    weak = {*shared_secrets(), *(line for config in BaseConfig.known for line in BaseConfig.problems(config()))}
    for problem in unsafe_settings():
        fix = "kit secrets prints fresh values" if problem in weak else "docs/configuration.md says what it may be"
        yield fault(problem, fix)


def _unwise() -> Iterator[Finding]:
    """Settings that do not stop a start, and are unwise outside of development."""
    config = app_config
    if config.captures_mail:
        yield warning("SMTP_HOST is not set: mails are written to files, nobody gets them", "set SMTP_HOST")
    elif config.SMTP_HOST and not (config.smtp_starttls or config.SMTP_SSL or config.SMTP_HOST in _LOOPBACK):
        what = "SMTP_TLS and SMTP_SSL are off: mails and the password cross the network in the clear"
        yield fault(what, "set SMTP_TLS=true, or SMTP_SSL=true for port 465")
    if "*" in config.BACKEND_CORS_ORIGINS:
        yield warning("BACKEND_CORS_ORIGINS is '*': pages of any origin may call", "name the origins")
    if not config.TRUSTED_PROXIES:
        what = "TRUSTED_PROXIES is not set: nothing cuts slow clients, or all of them have the proxy's address"
        yield warning(what, "put deploy/nginx.conf in front, and set it to the proxy's address")
    if not config.RATE_LIMITER_ENABLED:
        yield warning("RATE_LIMITER_ENABLED is off: passwords can be guessed", "switch it on")
    if config.SQL_ECHO:
        yield warning("SQL_ECHO is on: the log holds every statement with its values", "switch it off")


def environment() -> Iterator[Finding]:
    """Check that each key is a setting and has an effect."""
    file = env_file()
    if not file.exists() and file.name not in (".env", ".test.env"):
        yield fault(f"ENV_FILE names {file}, which does not exist", "correct ENV_FILE")
    for message in unknown_env_keys():
        yield warning(message, f"correct or remove it in the environment or in {file}; .sample.env has every setting")
    if file.is_file() and not app_config.is_relaxed and _is_open(file):
        yield warning(f"others on this machine may read {file}", f"chmod 600 {file}")
    given = app_config.model_fields_set
    for names, decider, wins in _USELESS:
        useless = [name for name in names if name in given]
        if useless and (decider in given) is wins:
            why = f"{decider} is set" if wins else f"{decider} is not"
            yield warning(f"{', '.join(useless)} without effect: {why}", "remove what is not meant")


def data_folder() -> list[Finding]:
    """Check that the folder for data can be written where something needs it, and be read by nobody else."""
    folder, database = app_config.var_dir, app_config.database_url
    file = Path(str(database.database)) if database.get_backend_name() == "sqlite" else None
    if not (app_config.is_relaxed or app_config.captures_mail or (file and file.is_relative_to(folder))):
        return [skipped(f"nothing needs {folder}")]
    found = [*_folder_faults(folder)]
    # A SQLite file in the folder is as private as that.
    if file and file.is_file() and not file.is_relative_to(folder) and _is_open(file) and _is_open(file.parent):
        found.append(warning(f"others on this machine may read {file}", f"chmod 600 {file}*"))
    return found or [ok(str(folder) if folder.is_dir() else f"{folder} can be made")]


def _folder_faults(folder: Path) -> Iterator[Finding]:
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as exc:
        yield fault(f"nothing can be written into {folder}: {exc.strerror}", "change VAR_DIR, or its owner")
        return
    if folder.is_dir() and _is_open(folder):
        what = f"others on this machine may look into {folder}, at mails and the database"
        yield warning(what, f"chmod 700 {folder}")
    for path in sorted((folder / "secrets").glob("*")):
        if _is_open(path):
            yield fault(f"others on this machine may read {path}", f"chmod 600 {path}")


def _is_open(path: Path) -> bool:
    return bool(path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))


def application() -> list[Finding]:
    """Check that it can be built, each token URL of its document answers, and each route can be reached."""
    if unsafe_settings():
        return [skipped("refuses to start with these settings")]
    try:
        from app.core import listeners, tasks  # noqa: F401
        from app.main import app
    except Exception as exc:
        fix = "kit module validate, or python -c 'import app.main' for the whole story"
        return [fault(f"cannot be built: {type(exc).__name__}: {reason(exc)}", fix)]
    faults: list[Collision | MisplacedLimit] = [*route_collisions(app.routes), *misplaced_limits(app.routes)]
    return [*_dead_token_urls(app), *(warning(str(one).removesuffix(f"; {one.fix}"), one.fix) for one in faults)]


def _dead_token_urls(app: FastAPI) -> Iterator[Finding]:
    schemes: dict[str, Any] = app.openapi().get("components", {}).get("securitySchemes", {})
    for name, scheme in schemes.items():
        for flow in scheme.get("flows", {}).values():
            url = urlsplit(urljoin("/openapi.json", flow.get("tokenUrl", "")))
            if url.netloc or "tokenUrl" not in flow:
                continue  # somebody else's
            scope = {"type": "http", "method": "POST", "path": url.path, "headers": []}
            if not any(route.matches(dict(scope))[0] == Match.FULL for route in app.routes):
                what = f"the token URL of {name} is {url.path}, where no route answers POST"
                yield fault(what, "correct tokenUrl of that scheme: Swagger's Authorize and clients use it")
