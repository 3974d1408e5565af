"""Settings of a service called over HTTP: an entry of `HTTP_INTEGRATIONS`."""

import re
from typing import Annotated, Any, Self

from pydantic import AnyHttpUrl, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator
from pydantic.networks import IPvAnyNetwork

_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HEADER_VALUE = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")
_LOCAL_HOSTS = ("localhost", "127.0.0.1", "[::1]")


class Integration(BaseModel):
    """A service at `base_url` or, if `guarded`, any public address that a user gives.

    Times are in seconds, sizes in bytes. `guarded_allow` names private networks that a user may address all the same.
    """

    # The names of environment variables are in capitals.
    model_config = ConfigDict(
        alias_generator=str.upper, populate_by_name=True, extra="forbid", frozen=True, hide_input_in_errors=True
    )

    base_url: AnyHttpUrl | None = None
    bearer: SecretStr | None = None
    basic: SecretStr | None = None
    headers: dict[str, SecretStr] = {}
    connect_timeout: float = Field(default=3.0, gt=0)
    read_timeout: float = Field(default=10.0, gt=0)
    total_timeout: float = Field(default=30.0, gt=0)
    retries: int = Field(default=2, ge=0, le=10)
    redirects: int = Field(default=0, ge=0, le=10)
    breaker_failures: int = Field(default=5, ge=1)
    breaker_seconds: float = Field(default=30.0, gt=0)
    max_connections: int = Field(default=20, ge=1)
    max_response_size: int = Field(default=5 * 1024 * 1024, ge=0)
    guarded: bool = False
    guarded_ports: frozenset[int] = frozenset({80, 443})
    guarded_allow: list[IPvAnyNetwork] = []

    @model_validator(mode="after")
    def _must_be_usable(self) -> Self:
        url = self.base_url
        if url is None and not self.guarded:
            raise ValueError("base_url is missing: only a guarded integration may go without and take whole URLs")
        if url and (url.username or url.password or url.query or url.fragment):
            raise ValueError("base_url must have no user, query or fragment: basic takes user:password")
        if self.bearer and self.basic:
            raise ValueError("bearer and basic are both set: a request has only one Authorization header")
        if self.basic and ":" not in self.basic.get_secret_value():
            raise ValueError("basic must be user:password")
        secrets = [each for each in (self.bearer, self.basic, *self.headers.values()) if each]
        if not all(_HEADER_VALUE.fullmatch(each.get_secret_value()) for each in secrets):
            raise ValueError("bearer, basic and headers must be printable ASCII, without spaces at either end")
        if not all(map(_HEADER_NAME.fullmatch, self.headers)):
            raise ValueError("headers has a malformed name")
        return self

    @property
    def has_credentials(self) -> bool:
        """True if requests carry credentials or other headers for this service only."""
        return bool(self.bearer or self.basic or self.headers)

    @property
    def is_exposed(self) -> bool:
        """True if credentials would cross the network unencrypted."""
        url = self.base_url
        return self.has_credentials and (url is None or (url.scheme == "http" and url.host not in _LOCAL_HOSTS))


def _lower(value: Any) -> Any:
    """Merge JSON and single variables (`HTTP_INTEGRATIONS__PAYMENTS__BEARER`); the variables take precedence."""
    if not isinstance(value, dict):
        return value
    merged: dict[str, Any] = {}
    for name, fields in sorted(value.items(), key=lambda item: str(item[0]).isupper()):
        known = merged.setdefault(str(name).lower(), {})
        if isinstance(fields, Integration) or not isinstance(fields, dict):
            merged[str(name).lower()] = fields
        elif isinstance(known, dict):
            known |= {str(field).lower(): given for field, given in fields.items()}
    return merged


Integrations = Annotated[dict[str, Integration], BeforeValidator(_lower)]
"""Type of a setting that holds integrations by name."""
