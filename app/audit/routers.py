"""Everything this module serves."""

from app.audit.routes import router as router_v1

__all__ = ["router_v1"]
