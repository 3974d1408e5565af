"""The permissions of this module."""

from app.core.identity import Permission

permissions = [
    Permission("users:read", "See every account, its sessions and its roles"),
    Permission("users:write", "Make, change and delete accounts, end their sessions"),
]
