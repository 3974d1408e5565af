"""The permissions of this module."""

from app.core.identity import Permission

permissions = [
    Permission("users:read", "See every account and its sessions"),
    Permission("users:write", "Make, change and delete accounts, end their sessions"),
    Permission("roles:read", "See roles, permissions, and the roles of every account"),
    Permission("roles:write", "Make, change and delete roles, grant and revoke them"),
]
