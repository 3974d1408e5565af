"""Settings of this module. `.sample.env` lists every one with its default."""

from datetime import timedelta
from functools import cached_property, lru_cache
from typing import Annotated, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from app.auth.security.identity import is_username, normalize_email
from app.auth.security.passwords import PasswordHasher, PasswordPolicy
from app.auth.security.tokens import AccessTokens, Algorithm, SigningKey
from app.core.configs import BaseConfig, app_config, local_secret


def _username(value: str) -> str:
    if not is_username(value):
        raise ValueError("must be 3 to 32 of A-Z a-z 0-9 _ . -")
    return value


class AuthConfig(BaseConfig):
    """Settings of accounts, sessions, tokens and passwords."""

    required_secrets = ("JWT_SECRET_KEY",)
    optional_secrets = ("JWT_PREVIOUS_SECRET_KEY", "JWT_NEXT_SECRET_KEY")

    JWT_SECRET_KEY: SecretStr | None = None
    JWT_PREVIOUS_SECRET_KEY: SecretStr | None = None
    JWT_NEXT_SECRET_KEY: SecretStr | None = None
    JWT_ALGORITHM: Algorithm = "HS256"
    JWT_ISSUER: str | None = None
    JWT_AUDIENCE: str | None = None
    ACCESS_TOKEN_EXPIRE_MINUTES: int = Field(default=15, ge=1, le=24 * 60)
    REFRESH_TOKEN_EXPIRE_DAYS: int = Field(default=30, ge=1, le=3650)
    SESSION_IDLE_DAYS: int = Field(default=14, ge=1, le=3650)
    MAX_SESSIONS_PER_USER: int = Field(default=20, ge=1, le=1000)
    EMAIL_RESET_TOKEN_EXPIRE_MINUTES: int = Field(default=15, ge=1, le=7 * 24 * 60)
    EMAIL_VERIFY_TOKEN_EXPIRE_HOURS: int = Field(default=24, ge=1, le=30 * 24)

    USER_REGISTRATION_ALLOWED: bool = True
    USER_VERIFICATION_REQUIRED: bool | None = None
    USER_UNVERIFIED_KEEP_DAYS: int = Field(default=7, ge=1, le=3650)
    USER_ERASURE_DAYS: int = Field(default=30, ge=0, le=3650)

    FIRST_USER_EMAIL: Annotated[str, AfterValidator(normalize_email)] = "admin@example.com"
    FIRST_USER_USERNAME: Annotated[str, AfterValidator(_username)] = "admin"
    FIRST_USER_PASSWORD: SecretStr | None = None

    PASSWORD_MIN_LENGTH: int = Field(default=12, ge=8, le=64)
    PASSWORD_HASH_MEMORY_KIB: int = Field(default=19 * 1024, ge=8)
    PASSWORD_HASH_ROUNDS: int = Field(default=2, ge=1)
    PASSWORD_HASH_PARALLELISM: int = Field(default=1, ge=1)
    PASSWORD_HASH_WORKERS: int = Field(default=2, ge=1)

    @model_validator(mode="after")
    def _must_work(self) -> Self:
        # Elsewhere `problems()` says it, together with every other fault.
        if app_config.is_relaxed and (faults := self._unusable()):
            raise ValueError("; ".join(faults))
        return self

    @property
    def verification_required(self) -> bool:
        """Return True where an address must be verified before its account can be used."""
        if self.USER_VERIFICATION_REQUIRED is None:
            return not app_config.is_relaxed
        return self.USER_VERIFICATION_REQUIRED

    @cached_property
    def access_tokens(self) -> AccessTokens:
        """Return the maker and reader of access tokens."""
        secret = self.JWT_SECRET_KEY or local_secret("JWT_SECRET_KEY", app_config.var_dir)
        ring = dict.fromkeys(filter(None, (secret, self.JWT_PREVIOUS_SECRET_KEY, self.JWT_NEXT_SECRET_KEY)))
        return AccessTokens(
            keys=[SigningKey.load(key.get_secret_value(), self.JWT_ALGORITHM) for key in ring],
            algorithm=self.JWT_ALGORITHM,
            issuer=self.JWT_ISSUER or app_config.DOMAIN,
            audience=self.JWT_AUDIENCE or app_config.DOMAIN,
            lifetime=timedelta(minutes=self.ACCESS_TOKEN_EXPIRE_MINUTES),
        )

    @cached_property
    def password_hasher(self) -> PasswordHasher:
        """Return the password hasher."""
        return PasswordHasher(
            memory_kib=self.PASSWORD_HASH_MEMORY_KIB,
            rounds=self.PASSWORD_HASH_ROUNDS,
            parallelism=self.PASSWORD_HASH_PARALLELISM,
            workers=self.PASSWORD_HASH_WORKERS,
        )

    @cached_property
    def password_policy(self) -> PasswordPolicy:
        """Return what every new password must comply with."""
        return PasswordPolicy(self.PASSWORD_MIN_LENGTH, app_config.PROJECT_NAME, app_config.DOMAIN)

    def problems(self) -> list[str]:
        found = super().problems()
        named = {fault.split()[0] for fault in found}
        return found + [fault for fault in self._unusable() if fault.split()[0] not in named]

    def _unusable(self) -> list[str]:
        found = []
        for name in (*self.required_secrets, *self.optional_secrets):
            if (secret := getattr(self, name)) is not None:
                try:
                    SigningKey.load(secret.get_secret_value(), self.JWT_ALGORITHM)
                except ValueError as exc:
                    found.append(f"{name} {exc}")
        if self.JWT_ALGORITHM != "HS256" and self.JWT_SECRET_KEY is None:
            found.append(f"JWT_SECRET_KEY is missing: {self.JWT_ALGORITHM} needs a private key in PEM form")
        return found


@lru_cache
def get_auth_config() -> AuthConfig:
    """Return the settings of this module, read once a process."""
    return AuthConfig()
