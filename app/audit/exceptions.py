"""What can go wrong in this module, free of HTTP."""

from app.core.exceptions import NotFoundError


class AuditEventNotFound(NotFoundError):
    """There is no such event, or it is older than what is kept."""

    code = "audit_event_not_found"
    default_detail = "The event was not found."
