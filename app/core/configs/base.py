"""Base class of settings, read from the environment, then `.env`, then defaults; in `testing`, from `.test.env`.

A developer's `.env` is left out when testing: it may name a database that tests must never touch.
"""

import difflib
import errno
import json
import os
import secrets
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from dotenv import dotenv_values
from pydantic import BeforeValidator, SecretStr
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from app.core.configs.safety import weak_secret
from app.core.exceptions import ConfigError

PROJECT_ROOT = Path(__file__).resolve().parents[3]
"""The folder that holds `app/`, `.env` and `var/`."""

# Former settings that nobody set: constants now.
_CONSTANTS = {
    "CACHE_MAX_ITEMS": "app/core/services/cache/store.py",
    "CACHE_MAX_BYTES": "app/core/services/cache/store.py",
    "CACHE_MAX_VALUE_BYTES": "app/core/services/cache/store.py",
    "CACHE_MAX_SECONDS": "app/core/services/cache/store.py",
}


def env_file() -> Path:
    """Return the settings file: `ENV_FILE` where set, `.test.env` when testing, `.env` otherwise."""
    if chosen := os.environ.get("ENV_FILE"):
        return _readable(Path(chosen))
    name = os.environ.get("ENVIRONMENT") or _values_of(_readable(PROJECT_ROOT / ".env")).get("ENVIRONMENT")
    return _readable(PROJECT_ROOT / (".test.env" if (name or "").lower() == "testing" else ".env"))


def _values_of(path: Path) -> dict[str, str | None]:
    """Read a settings file as it stands: a password may hold `${`."""
    return dotenv_values(path, interpolate=False)


def _readable(path: Path) -> Path:
    """Return the path; ConfigError where it exists and cannot be read."""
    try:
        path.read_text(encoding="utf-8")
    except FileNotFoundError:
        pass
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else exc.reason
        raise ConfigError(f"{path} cannot be read: {reason}; it must be a text file in UTF-8") from exc
    return path


def _split(value: Any) -> Any:
    """Accept `a,b` beside a JSON list, which is all pydantic-settings takes by itself."""
    if isinstance(value, str) and not value.strip().startswith("["):
        return [item.strip() for item in value.split(",") if item.strip()]
    return json.loads(value) if isinstance(value, str) else value


StrList = Annotated[list[str], NoDecode, BeforeValidator(_split)]
"""A setting that is a list: comma-separated or JSON."""


class _EnvFile(EnvSettingsSource):
    """The settings file of this process; an empty value counts as unset."""

    def _load_env_vars(self) -> dict[str, str | None]:
        return {name: value for name, value in _values_of(env_file()).items() if value}


class BaseConfig(BaseSettings):
    """Base of the core's and every module's settings.

    `required_secrets` names the fields that must be strong outside `local` and `testing`, `optional_secrets` those that
    must be so where they are set.
    """

    required_secrets: ClassVar[tuple[str, ...]] = ()
    optional_secrets: ClassVar[tuple[str, ...]] = ()
    known: ClassVar[list[type["BaseConfig"]]] = []

    model_config = SettingsConfigDict(
        env_ignore_empty=True,
        extra="ignore",
        case_sensitive=True,
        frozen=True,
        hide_input_in_errors=True,
        env_nested_delimiter="__",
    )

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except SettingsError as exc:  # JSON that is none; its cause quotes the value
            raise ConfigError(str(exc)) from None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        BaseConfig.known.append(cls)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, _EnvFile(settings_cls)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with other values, whose cached properties are computed from these."""
        copy = super().model_copy(update=update, deep=deep)
        for name in vars(copy).keys() - type(self).model_fields.keys() - (update or {}).keys():
            del vars(copy)[name]
        return copy

    def problems(self) -> list[str]:
        """List faults that stop a start outside `local` and `testing`: one sentence each, never a value."""
        found = []
        for name in (*self.required_secrets, *(each for each in self.optional_secrets if getattr(self, each))):
            if reason := weak_secret(getattr(self, name)):
                found.append(f"{name} {reason}")
        return found


def shared_secrets() -> list[str]:
    """List required secrets that equal another secret setting: a sentence each."""
    fields = {name: value for config in BaseConfig.known for name, value in config()}
    values = {name: value.get_secret_value() for name, value in fields.items() if isinstance(value, SecretStr)}
    required = [name for config in BaseConfig.known for name in config.required_secrets if name in values]
    pairs = sorted({tuple(sorted((one, other))) for one in required for other in values if one != other})
    return [f"{a} and {b} are the same: set different values" for a, b in pairs if values[a] == values[b]]


def unknown_env_keys() -> list[str]:
    """List the keys of the settings file that are no setting, each with the likely name.

    Keys that name a constant are listed with its place, those of the environment too.
    """
    names = sorted({field for config in BaseConfig.known for field in config.model_fields})
    keys = _values_of(env_file())
    messages = [
        f"{name} is no setting: change the constant in {place}"
        for name, place in _CONSTANTS.items()
        if name not in names and (name in keys or name in os.environ)
    ]
    for key in keys:
        if key.partition("__")[0] not in names and key not in _CONSTANTS:
            close = difflib.get_close_matches(key.upper(), names, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            messages.append(f"{env_file().name}: unknown setting {key!r}{hint}")
    return messages


def local_secret(name: str, folder: Path) -> SecretStr:
    """Return a secret that is generated once and kept under `folder` with mode 0600.

    Linked into place whole, so that two processes starting together read the same value.
    """
    path = folder / "secrets" / name
    try:
        if not path.exists():
            _make_secret(path)
        return SecretStr(path.read_text().strip())
    except OSError as exc:
        raise ConfigError(f"{name} is not set and cannot be kept in VAR_DIR={folder}: {exc.strerror}") from exc


def _make_secret(path: Path) -> None:
    make_private(path.parent)
    handle, draft = tempfile.mkstemp(dir=path.parent)  # mkstemp creates with mode 0600
    with os.fdopen(handle, "w") as file:
        file.write(secrets.token_urlsafe(48))
    try:
        os.link(draft, path)
    except FileExistsError:
        pass  # another process was first; its value counts
    finally:
        os.unlink(draft)


def make_private(folder: Path) -> None:
    """Create a folder, and missing ones above it, for their owner alone. An existing one stays as it is."""
    for path in (*reversed(folder.parents), folder):
        if not path.exists():
            path.mkdir(mode=0o700, exist_ok=True)
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
