"""Replace a built-in service (cache, events, queue, mail) or the error reporter by a class that a setting names."""

import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from app.core.configs import AppConfig
from app.core.exceptions import ConfigError
from app.core.services.cache.interface import CacheServiceInterface
from app.core.services.events.interface import EventsServiceInterface
from app.core.services.log.reporting import ErrorReporterInterface
from app.core.services.mail.interface import MailServiceInterface
from app.core.services.queue.interface import QueueServiceInterface

INTERFACES: dict[str, type[Any]] = {
    "CACHE_PROVIDER": CacheServiceInterface,
    "EVENTS_PROVIDER": EventsServiceInterface,
    "QUEUE_PROVIDER": QueueServiceInterface,
    "MAIL_PROVIDER": MailServiceInterface,
    "ERROR_REPORTER": ErrorReporterInterface,
}
"""The interface that the class of each setting must implement."""

OFFERED = ("settings", "database", "redis", "key_prefix", "broker", "background", "waker", "queue", "sender")
"""Names its `__init__` may ask for; a QUEUE_PROVIDER itself cannot ask for `queue`."""


def check_providers(settings: AppConfig) -> None:
    """Raise ConfigError, a line for each setting that names a class that cannot be used."""
    faults = []
    for setting in INTERFACES:
        try:
            _kind(settings, setting)
        except ConfigError as exc:
            faults.append(str(exc))
    if faults:
        raise ConfigError("\n".join(faults))


def provided(settings: AppConfig, setting: str, offered: Mapping[str, Any]) -> Any:
    """Make an instance of the class that `setting` names; None if it is unset."""
    kind = _kind(settings, setting)
    return None if kind is None else kind(**{name: offered[name] for name in _parameters(kind) if name in offered})


def _kind(settings: AppConfig, setting: str) -> type[Any] | None:
    path: str | None = settings.error_reporter if setting == "ERROR_REPORTER" else getattr(settings, setting)
    if path is None:
        return None
    place, _, name = path.rpartition(".")
    try:
        found = getattr(import_module(place), name)
    except Exception as exc:  # importing runs the file's own code
        raise ConfigError(f"{setting}={path} cannot be loaded: {type(exc).__name__}: {exc}") from exc
    interface = INTERFACES[setting]
    if not (isinstance(found, type) and issubclass(found, interface)):
        raise ConfigError(f"{setting}={path} is no subclass of {interface.__name__}")
    if missing := sorted(getattr(found, "__abstractmethods__", ())):
        raise ConfigError(f"{setting}={path} does not implement {', '.join(missing)} of {interface.__name__}")
    needed = [name for name, each in _parameters(found).items() if each.default is each.empty]
    offered = [name for name in OFFERED if (name, setting) != ("queue", "QUEUE_PROVIDER")]
    if setting == "ERROR_REPORTER":  # opened first
        offered = ["settings"]
    if unknown := [name for name in needed if name not in offered]:
        raise ConfigError(f"{setting}={path} asks for {', '.join(unknown)}: its __init__ may take {', '.join(offered)}")
    return found


def _parameters(kind: type[Any]) -> dict[str, inspect.Parameter]:
    found = inspect.signature(kind).parameters.values()
    return {each.name: each for each in found if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)}
