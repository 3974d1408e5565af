"""Whether the settings can be read, are safe where it counts, and are all used."""

import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from app.cli.console import faults_of
from app.cli.doctor.findings import Finding, fault, or_ok, warning

if TYPE_CHECKING:
    from app.core.configs import AppConfig

_LOOPBACK = ("localhost", "127.0.0.1", "::1")

# What is set in vain: the settings, unless one of those, and why.
_USELESS = (
    (("POSTGRES_SERVER", "POSTGRES_PORT", "POSTGRES_USER", "POSTGRES_PASSWORD", "POSTGRES_DB"), "DATABASE_URL", True),
    (("REDIS_HOST", "REDIS_PORT"), "REDIS_URL", True),
    (("SMTP_PORT", "SMTP_USER", "SMTP_PASSWORD", "SMTP_TLS", "SMTP_SSL"), "SMTP_HOST", False),
)


def are_readable() -> bool:
    """Whether there are settings to work with."""
    return not _unreadable()


def settings() -> list[Finding]:
    """The settings of core and modules can be read, and are fit for where the process runs."""
    if unreadable := _unreadable():
        return [fault("settings", line, "correct it in the environment or in .env: .sample.env") for line in unreadable]
    from app.core.configs import app_config

    found = [] if app_config.is_relaxed else [*_unfit(), *_unwise(app_config)]
    return or_ok("settings", found, f"fit for {app_config.ENVIRONMENT}")


def _unreadable() -> list[str]:
    from pydantic import ValidationError

    from app.core.exceptions import ConfigError

    try:
        from app.core.configs import BaseConfig
        from app.core.modules import parts

        list(parts("config"))
        for config in BaseConfig.known:
            config()
    except ConfigError as exc:
        return str(exc).splitlines()
    except ValidationError as exc:
        return faults_of(exc)
    return []


def unfit_settings() -> list[str]:
    """Why the service would not start, outside `local` and `testing`."""
    from app.core.configs import BaseConfig, app_config

    return [] if app_config.is_relaxed else [line for config in BaseConfig.known for line in config().problems()]


def _unfit() -> Iterator[Finding]:
    from app.core.configs import BaseConfig

    weak = {line for config in BaseConfig.known for line in BaseConfig.problems(config())}
    for problem in unfit_settings():
        fix = "kit secrets prints fresh values" if problem in weak else "docs/configuration.md says what it may be"
        yield fault("settings", problem, fix)


def _unwise(config: "AppConfig") -> Iterator[Finding]:
    """What starts, and is not what one wants outside of development."""
    if "*" in config.BACKEND_CORS_ORIGINS:
        yield warning("settings", "BACKEND_CORS_ORIGINS is '*': pages of any origin may call", "name the origins")
    if config.captures_mail:
        yield warning("settings", "SMTP_HOST is not set: mails are written to files, nobody gets them", "set SMTP_HOST")
    elif config.SMTP_HOST and not (config.smtp_starttls or config.SMTP_SSL or config.SMTP_HOST in _LOOPBACK):
        what = "SMTP_TLS and SMTP_SSL are off: mails and the password cross the network in the clear"
        yield fault("settings", what, "set SMTP_TLS=true, or SMTP_SSL=true for port 465")
    if config.FRONTEND_URL.host in _LOOPBACK:
        what = f"FRONTEND_URL names {config.FRONTEND_URL.host}: the links in mails lead nowhere"
        yield warning("settings", what, "set it to the address that people use")
    if not config.TRUSTED_PROXIES:
        what = "TRUSTED_PROXIES is not set: nothing cuts slow clients, or all of them have the proxy's address"
        yield warning("settings", what, "put deploy/nginx.conf in front, and set it to the proxy's address")
    if not config.RATE_LIMITER_ENABLED:
        yield warning("settings", "RATE_LIMITER_ENABLED is off: passwords can be guessed", "switch it on")
    if config.SQL_ECHO:
        yield warning("settings", "SQL_ECHO is on: the log holds every statement with its values", "switch it off")


def environment() -> list[Finding]:
    """Every key that is set is a setting, and has an effect."""
    return or_ok("environment", _keys(), "every key is a setting that counts")


def _keys() -> Iterator[Finding]:
    from app.core.configs import app_config, unknown_env_keys
    from app.core.configs.base import env_file

    file = env_file()
    if not file.exists() and file.name not in (".env", ".test.env"):
        yield fault("environment", f"ENV_FILE names {file}, which does not exist", "correct ENV_FILE")
    for message in unknown_env_keys():
        yield warning("environment", message, f"correct or remove it in {file}; .sample.env has every setting")
    if file.is_file() and not app_config.is_relaxed and file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        yield warning("environment", f"others on this machine may read {file}", f"chmod 600 {file}")
    for names, decider, wins in _USELESS:
        useless = [name for name in names if name in app_config.model_fields_set]
        if useless and (decider in app_config.model_fields_set) is wins:
            why = f"{decider} is set" if wins else f"{decider} is not"
            yield warning("environment", f"{', '.join(useless)} without effect: {why}", "remove what is not meant")


def data_folder() -> list[Finding]:
    """The folder for data can be written, and its secrets be read by nobody else."""
    from app.core.configs import app_config

    folder = app_config.var_dir
    return or_ok("data folder", _folder_faults(folder), f"{folder} {'' if folder.is_dir() else 'can be made'}".rstrip())


def _folder_faults(folder: Path) -> Iterator[Finding]:
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as exc:
        yield fault(
            "data folder", f"nothing can be written into {folder}: {exc.strerror}", "change VAR_DIR, or its owner"
        )
        return
    for path in sorted((folder / "secrets").glob("*")):
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            yield fault("data folder", f"others on this machine may read {path}", f"chmod 600 {path}")
