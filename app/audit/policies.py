"""Who may do what in this module. A policy raises ActionNotAllowed where the answer to its question is no."""

from app.auth import requires_permission

can_read_events = requires_permission("audit:read")
"""May the user see what happened to everybody's accounts?"""
