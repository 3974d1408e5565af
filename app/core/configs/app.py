"""The core's settings. `.sample.env` lists every one with its default."""

import re
from enum import StrEnum
from functools import cached_property, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AnyHttpUrl, BeforeValidator, Field, SecretStr, field_validator, model_validator
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from app.core.configs.base import PROJECT_ROOT, BaseConfig, StrList, local_secret
from app.core.configs.integrations import Integrations
from app.core.configs.safety import is_default_password, unreachable_link, untrustworthy_proxies
from app.core.process import Slot

_SENTRY_DSN = re.compile(r"https?://[^\s@/]+@[^\s@/]+(/[^\s?#]+)+")
_LOCAL_HOSTS = (None, "localhost", "127.0.0.1", "::1")

QUEUE_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
QUEUE_SETTING = re.compile(
    rf"(?P<name>{QUEUE_NAME.pattern}):(?P<slots>[1-9]\d{{0,3}})"
    r"(:max=(?P<running>[1-9]\d{0,5}))?(:(?P<starts>[1-9]\d{0,2})/(?P<seconds>[1-9]\d{0,3})s)?"
)
"""An item of `JOBS_QUEUES`, as `mail:5` or `reports:2:max=4:10/60s`."""

LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
LogFormat = Literal["json", "console"]


def _upper(value: Any) -> Any:
    return value.upper() if isinstance(value, str) else value


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


class Environment(StrEnum):
    """Environment of the process; `staging` and `production` are strict."""

    LOCAL = "local"
    TESTING = "testing"
    STAGING = "staging"
    PRODUCTION = "production"


class AppConfig(BaseConfig):
    """Settings of the service itself; a module has its own `config.py`."""

    required_secrets = ("SECRET_KEY",)
    optional_secrets = ("PREVIOUS_SECRET_KEY", "NEXT_SECRET_KEY", "METRICS_TOKEN")

    ENVIRONMENT: Annotated[Environment, BeforeValidator(_lower)] = Environment.LOCAL
    PROJECT_NAME: str = "FastAPI Modulith"
    DOMAIN: str = "localhost"
    HOST: str = "127.0.0.1"
    PORT: int = Field(default=8000, ge=0, le=65535)
    WEB_CONCURRENCY: int = Field(default=1, ge=1)
    API_V1_STR: str = "/api/v1"
    API_V2_STR: str = "/api/v2"
    ROOT_PATH: str | None = Field(default=None, pattern=r"^(/[A-Za-z0-9._~-]+)+$")
    FRONTEND_URL: AnyHttpUrl = AnyHttpUrl("http://localhost:3000")
    BACKEND_CORS_ORIGINS: StrList = Field(default=[])
    BACKEND_CORS_HEADERS: StrList = Field(default=[])
    CORS_ALLOW_CREDENTIALS: bool = False
    CONVERSATION_COOKIE: bool = True
    TRUSTED_PROXIES: StrList = Field(default=[])
    MAX_BODY_SIZE: int = Field(default=1024 * 1024, ge=0)
    RATE_LIMITER_ENABLED: bool = True
    RATE_LIMITER_TIMEOUT_SECONDS: float = Field(default=0.2, gt=0)
    CLIENT_TIMEOUT_SECONDS: float = Field(default=20.0, gt=0)
    SHUTDOWN_DRAIN_SECONDS: float | None = Field(default=None, ge=0)
    SHUTDOWN_GRACE_SECONDS: int = Field(default=20, ge=0)
    MODULES: StrList = Field(default=["app.*"])
    VAR_DIR: Path = Path("var")

    SECRET_KEY: SecretStr | None = None
    PREVIOUS_SECRET_KEY: SecretStr | None = None
    NEXT_SECRET_KEY: SecretStr | None = None

    DATABASE_URL: SecretStr | None = None
    POSTGRES_SERVER: str | None = None
    POSTGRES_PORT: int = 5432
    POSTGRES_USER: str = "postgres"
    POSTGRES_PASSWORD: SecretStr | None = None
    POSTGRES_DB: str = "app"
    DB_POOL_SIZE: int = Field(default=10, ge=1)
    DB_POOL_TIMEOUT_SECONDS: float = Field(default=3.0, gt=0)
    DB_STATEMENT_TIMEOUT_SECONDS: float = Field(default=10.0, ge=0)
    DB_IDLE_TRANSACTION_TIMEOUT_SECONDS: float = Field(default=60.0, ge=0)
    DB_PREPARED_STATEMENTS: bool = True
    MIGRATE_LOCK_TIMEOUT_SECONDS: float = Field(default=1.0, ge=0)
    MIGRATE_ON_START: bool = True
    SQL_ECHO: bool = False

    REDIS_URL: SecretStr | None = None
    REDIS_HOST: str | None = None
    REDIS_PORT: int = 6379
    REDIS_KEY_PREFIX: str | None = None

    WORKER_IN_APP: bool | None = None
    JOBS_CONCURRENCY: int = Field(default=10, ge=1)
    JOBS_QUEUES: StrList = Field(default=["mail:5"])
    WORKER_QUEUES: StrList = Field(default=[])
    JOBS_POLL_SECONDS: float = Field(default=1.0, gt=0)
    JOBS_LEASE_SECONDS: float = Field(default=20.0, gt=0)
    JOBS_KEEP_DAYS: int = Field(default=7, ge=0)

    CACHE_TIMEOUT_SECONDS: float = Field(default=0.03, gt=0)

    CACHE_PROVIDER: str | None = None
    EVENTS_PROVIDER: str | None = None
    QUEUE_PROVIDER: str | None = None
    MAIL_PROVIDER: str | None = None

    SMTP_HOST: str | None = None
    SMTP_PORT: int = Field(default=587, ge=1, le=65535)
    SMTP_USER: str | None = None
    SMTP_PASSWORD: SecretStr | None = None
    SMTP_TLS: bool | None = None
    SMTP_SSL: bool = False
    EMAIL_SENDER_ADDRESS: str = Field(default="noreply@localhost", pattern=r"^[A-Za-z0-9.!#$%&'*+/_-]+@[A-Za-z0-9.-]+$")
    EMAIL_SENDER_NAME: str = Field(default="FastAPI Modulith", pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*$")

    LOG_LEVEL: Annotated[LogLevel, BeforeValidator(_upper)] = "INFO"
    LOG_FORMAT: Annotated[LogFormat | None, BeforeValidator(_lower)] = None

    HTTP_INTEGRATIONS: Integrations = Field(default={})

    SENTRY_DSN: SecretStr | None = None
    ERROR_REPORTER: str | None = None

    METRICS_ENABLED: bool = False
    METRICS_HOST: str = "127.0.0.1"
    METRICS_PORT: int | None = Field(default=None, ge=1, le=65535)
    METRICS_TOKEN: SecretStr | None = None

    @field_validator("JOBS_QUEUES")
    @classmethod
    def _queues_must_parse(cls, value: list[str]) -> list[str]:
        if not all(QUEUE_SETTING.fullmatch(item) for item in value):
            raise ValueError("write NAME:SLOTS, with :max=N and :STARTS/SECONDSs if wished: mail:5,reports:2:10/60s")
        return value

    @field_validator("WORKER_QUEUES")
    @classmethod
    def _queues_have_names(cls, value: list[str]) -> list[str]:
        if not all(QUEUE_NAME.fullmatch(item) for item in value):
            raise ValueError("names of queues have only lower-case letters, digits, '-', '_' and '.'")
        return value

    @model_validator(mode="after")
    def _urls_must_parse(self) -> Self:
        try:
            url = self.database_url
        except (ArgumentError, ValueError):  # which quote the URL
            raise ValueError("DATABASE_URL is not a database URL") from None
        in_memory = url.database in (None, "", ":memory:")  # each connection would have a database of its own
        if url.drivername != "postgresql+psycopg" and (url.drivername != "sqlite+aiosqlite" or in_memory):
            raise ValueError("DATABASE_URL must be postgresql://... or name a SQLite file, sqlite:///...")
        if self.REDIS_URL and not self.REDIS_URL.get_secret_value().startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("REDIS_URL must start with redis://, rediss:// or unix://")
        try:
            _ = urlsplit(self.redis_url or "").port
        except ValueError:  # which quotes it
            raise ValueError("REDIS_URL is not a Redis URL: write / @ : in a password as %2F %40 %3A") from None
        if self.SENTRY_DSN and not _SENTRY_DSN.fullmatch(self.SENTRY_DSN.get_secret_value()):
            raise ValueError("SENTRY_DSN is not a DSN of Sentry, as https://key@host/project")
        return self

    @model_validator(mode="after")
    def _metrics_have_their_library(self) -> Self:
        if self.METRICS_ENABLED and find_spec("prometheus_client") is None:
            raise ValueError("METRICS_ENABLED needs the extra `metrics`: pip install prometheus-client")
        return self

    @model_validator(mode="after")
    def _mail_has_one_kind_of_tls(self) -> Self:
        if self.SMTP_TLS and self.SMTP_SSL:
            raise ValueError(
                "SMTP_TLS and SMTP_SSL are both true: SMTP_TLS is STARTTLS (usually port 587), SMTP_SSL is TLS from"
                " the first byte (usually port 465); set one of them to false"
            )
        return self

    @property
    def is_relaxed(self) -> bool:
        """True in `local` and `testing`, where defaults for development are in force."""
        return self.ENVIRONMENT in (Environment.LOCAL, Environment.TESTING)

    @property
    def drain_seconds(self) -> float:
        """`SHUTDOWN_DRAIN_SECONDS`, or 0 in `local` and `testing` and 5 elsewhere."""
        if self.SHUTDOWN_DRAIN_SECONDS is None:
            return 0.0 if self.is_relaxed else 5.0
        return self.SHUTDOWN_DRAIN_SECONDS

    @cached_property
    def var_dir(self) -> Path:
        """Folder of the SQLite database, captured mails and generated secrets."""
        return self.VAR_DIR if self.VAR_DIR.is_absolute() else PROJECT_ROOT / self.VAR_DIR

    @property
    def captures_mail(self) -> bool:
        """True if mails are written to files instead of being sent."""
        return self.SMTP_HOST is None and self.MAIL_PROVIDER is None

    @property
    def mail_dir(self) -> Path:
        """Folder of captured mails."""
        return self.var_dir / "mail"

    @cached_property
    def secret_key(self) -> SecretStr:
        """`SECRET_KEY`, generated once under `var/` where it is unset in development."""
        return self.SECRET_KEY or local_secret("SECRET_KEY", self.var_dir)

    @property
    def secret_keys(self) -> tuple[SecretStr, ...]:
        """The key ring: the first key makes, the others are accepted while the key is changed."""
        return self.secret_key, *filter(None, (self.PREVIOUS_SECRET_KEY, self.NEXT_SECRET_KEY))

    @cached_property
    def database_url(self) -> URL:
        """The database to use, with an asynchronous driver: `DATABASE_URL`, `POSTGRES_*`, or SQLite under `var/`."""
        if self.DATABASE_URL:
            url = make_url(self.DATABASE_URL.get_secret_value())
            if url.drivername in ("postgresql", "postgres"):
                url = url.set(drivername="postgresql+psycopg")
            elif url.drivername == "sqlite":
                url = url.set(drivername="sqlite+aiosqlite")
            return url
        if self.POSTGRES_SERVER:
            password = self.POSTGRES_PASSWORD
            return URL.create(
                "postgresql+psycopg",
                username=self.POSTGRES_USER,
                password=password.get_secret_value() if password else None,
                host=self.POSTGRES_SERVER,
                port=self.POSTGRES_PORT,
                database=self.POSTGRES_DB,
            )
        return URL.create("sqlite+aiosqlite", database=str(self.var_dir / "app.db"))

    @property
    def redis_url(self) -> str | None:
        """The Redis to use, or None for in-process stores."""
        if self.REDIS_URL:
            return self.REDIS_URL.get_secret_value()
        return f"redis://{self.REDIS_HOST}:{self.REDIS_PORT}/0" if self.REDIS_HOST else None

    @property
    def worker_in_app(self) -> bool:
        """True if the job runner lives in the app process."""
        if self.WORKER_IN_APP is None:
            return self.redis_url is None or self.is_relaxed
        return self.WORKER_IN_APP

    @property
    def smtp_starttls(self) -> bool:
        """True if mail is sent by STARTTLS: `SMTP_TLS`, or, where that is unset, without `SMTP_SSL`."""
        return not self.SMTP_SSL if self.SMTP_TLS is None else self.SMTP_TLS

    @property
    def error_reporter(self) -> str | None:
        """Dotted path of the error reporter: `ERROR_REPORTER`, or Sentry's if `SENTRY_DSN` is set."""
        return self.ERROR_REPORTER or ("app.core.services.sentry.SentryReporter" if self.SENTRY_DSN else None)

    @property
    def docs_enabled(self) -> bool:
        """True if `/docs` and `/openapi.json` are served."""
        return self.ENVIRONMENT is not Environment.PRODUCTION

    def problems(self) -> list[str]:
        found = super().problems()
        if reason := untrustworthy_proxies(self.TRUSTED_PROXIES):
            found.append(f"TRUSTED_PROXIES {reason}")
        if reason := unreachable_link(self.FRONTEND_URL):
            found.append(f"FRONTEND_URL {reason}")
        if self.METRICS_ENABLED and not (self.METRICS_PORT or self.METRICS_TOKEN):
            found.append("METRICS_TOKEN is missing: /metrics would be open to everyone; set it, or METRICS_PORT")
        if "*" in self.BACKEND_CORS_ORIGINS and self.CORS_ALLOW_CREDENTIALS:
            found.append("BACKEND_CORS_ORIGINS must not be '*' while CORS_ALLOW_CREDENTIALS is on: name the origins")
        if self.WEB_CONCURRENCY > 1 and self.redis_url is None:
            found.append("REDIS_URL is missing: WEB_CONCURRENCY > 1 cannot share the in-process cache and queue")
        if self.WEB_CONCURRENCY > 1 and self.database_url.get_backend_name() == "sqlite":
            found.append("DATABASE_URL names SQLite: WEB_CONCURRENCY > 1 needs PostgreSQL")
        if self.SMTP_PASSWORD and not (self.SMTP_SSL or self.smtp_starttls or self.SMTP_HOST in _LOCAL_HOSTS):
            found.append("SMTP_PASSWORD would cross the network in clear: set SMTP_TLS=true or SMTP_SSL=true")
        database, redis = self.database_url, urlsplit(self.redis_url or "")
        smtp = self.SMTP_PASSWORD.get_secret_value() if self.SMTP_PASSWORD else None
        for name, password, user in (
            ("DATABASE_URL" if self.DATABASE_URL else "POSTGRES_PASSWORD", database.password, database.username),
            ("REDIS_URL", redis.password, redis.username),
            ("SMTP_PASSWORD", smtp, self.SMTP_USER),
        ):
            if is_default_password(password, user):
                found.append(f"{name} has a default password: set a random one")
        if self.SMTP_PASSWORD and not self.SMTP_USER:
            found.append("SMTP_USER is missing: SMTP_PASSWORD alone is no log-in")
        found += [
            f"HTTP_INTEGRATIONS.{name} sends its credentials unencrypted, or to any host: set an https base_url"
            for name, integration in self.HTTP_INTEGRATIONS.items()
            if integration.is_exposed
        ]
        return found


@lru_cache
def get_settings() -> AppConfig:
    """Return the configuration of this process."""
    return AppConfig()


current_settings = Slot[AppConfig]()
"""The settings that the running application was opened with."""
