"""Policies: each raises ActionNotAllowed where the answer to its question is no."""

from app.auth import requires_permission

can_read_events = requires_permission("audit:read")
"""May the user read the audit log?"""
