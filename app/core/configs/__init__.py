"""The configuration of this process: `app_config`, and the base class for a module's own settings."""

from app.core.configs.app import AppConfig, Environment, get_settings
from app.core.configs.base import (
    PROJECT_ROOT,
    BaseConfig,
    StrList,
    local_secret,
    make_private,
    shared_secrets,
    unknown_env_keys,
)
from app.core.exceptions import ConfigError

app_config = get_settings()


def unsafe_settings() -> list[str]:
    """List the faults that stop a start outside `local` and `testing`: a sentence each, never a value."""
    if app_config.is_relaxed:
        return []
    return [*(fault for config in BaseConfig.known for fault in config().problems()), *shared_secrets()]


def check_settings() -> None:
    """Raise a ConfigError that names every unsafe setting at once."""
    if faults := unsafe_settings():
        raise ConfigError(
            f"The settings are not fit for {app_config.ENVIRONMENT}:\n" + "\n".join(f"  - {fault}" for fault in faults)
        )


__all__ = [
    "PROJECT_ROOT",
    "AppConfig",
    "BaseConfig",
    "Environment",
    "StrList",
    "app_config",
    "check_settings",
    "get_settings",
    "local_secret",
    "make_private",
    "unknown_env_keys",
    "unsafe_settings",
]
