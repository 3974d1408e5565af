"""What routes, listeners and tasks of this module ask for."""

from typing import Annotated, TypeAlias

from fastapi import Depends, Path

from app.audit.repositories import AuditEventRepository
from app.audit.services import AuditService
from app.auth import AuthGateway

AuditEventId: TypeAlias = Annotated[int, Path(ge=1, le=2**63 - 1)]


async def audit_service(gateway: AuthGateway) -> AuditService:
    """The service; plainly callable where there is no request."""
    return AuditService(events=AuditEventRepository(), gateway=gateway)


Audit: TypeAlias = Annotated[AuditService, Depends(audit_service)]
