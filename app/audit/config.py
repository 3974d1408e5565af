"""Settings of this module. `.sample.env` lists every one with its default."""

from datetime import timedelta
from functools import lru_cache

from pydantic import Field

from app.core.configs import BaseConfig


class AuditConfig(BaseConfig):
    """Retention of events."""

    AUDIT_KEEP_DAYS: int = Field(default=365, ge=1, le=36_500)

    @property
    def kept(self) -> timedelta:
        """Return the age at which an event is deleted."""
        return timedelta(days=self.AUDIT_KEEP_DAYS)


@lru_cache
def get_audit_config() -> AuditConfig:
    """Return the settings of this module, read once a process."""
    return AuditConfig()
