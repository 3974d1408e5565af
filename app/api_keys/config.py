"""Settings of this module. `.sample.env` lists every one with its default."""

from functools import lru_cache

from pydantic import Field

from app.core.configs import BaseConfig


class ApiKeysConfig(BaseConfig):
    """Limits of keys. With `API_KEYS_MAX_DAYS=0` a key may be valid for ever."""

    API_KEYS_PER_MINUTE: int = Field(default=600, ge=1, le=1_000_000)
    API_KEYS_MAX_DAYS: int = Field(default=366, ge=0, le=3660)


@lru_cache
def get_api_keys_config() -> ApiKeysConfig:
    """Return the settings of this module, read once a process."""
    return ApiKeysConfig()
