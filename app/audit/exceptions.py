"""Errors of this module, free of HTTP."""

from app.core.exceptions import NotFoundError


class AuditEventNotFound(NotFoundError):
    """The event does not exist, or has been purged."""

    code = "audit_event_not_found"
    default_detail = "The event was not found."
