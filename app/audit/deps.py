"""What routes, listeners and tasks of this module ask for."""

from typing import Annotated, TypeAlias

from fastapi import Depends

from app.audit.repositories import AuditEventRepository
from app.audit.services import AuditService
from app.auth import AuthGateway


async def audit_service(gateway: AuthGateway) -> AuditService:
    """The service; plainly callable where there is no request."""
    return AuditService(events=AuditEventRepository(), gateway=gateway)


Audit: TypeAlias = Annotated[AuditService, Depends(audit_service)]
