"""Dependencies of routes, listeners and tasks."""

from typing import Annotated, TypeAlias

from fastapi import Depends

from app.audit.repositories import AuditEventRepository
from app.audit.services import AuditService
from app.auth import AuthGateway


async def audit_service(gateway: AuthGateway) -> AuditService:
    """Return the service; can be called without a request too."""
    return AuditService(events=AuditEventRepository(), gateway=gateway)


Audit: TypeAlias = Annotated[AuditService, Depends(audit_service)]
