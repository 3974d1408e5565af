"""The permissions of this module."""

from app.core.identity import Permission

permissions = [Permission("audit:read", "Read the audit log")]
