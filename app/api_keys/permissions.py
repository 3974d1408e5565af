"""Permissions that this module checks."""

from app.core.identity import Permission

READ, WRITE = "api_keys:read", "api_keys:write"

permissions = [
    Permission(READ, "See everybody's API keys and the service accounts"),
    Permission(WRITE, "Revoke everybody's API keys, and make and change those of service accounts"),
]
