"""Routes of this module."""

from app.audit.routes import router as router_v1

__all__ = ["router_v1"]
