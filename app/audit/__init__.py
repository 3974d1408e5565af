"""Audit log of accounts: who did what, to whom, when and from where."""

from app.audit.routers import router_v1
from app.audit.schemas import AuditEventRead

__all__ = ["AuditEventRead", "router_v1"]
