"""Routes of this module: list and read the audit log."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi import Response as HTTPResponse

from app.audit.deps import Audit
from app.audit.schemas import AuditEventFilterParam, AuditEventListParams, AuditEventRead, AuditEventSortParam
from app.auth import requires_permission
from app.core.api import ListParamsBuilder, PaginatedResponse, Response
from app.core.api.inputs import RowId
from app.core.deps import DBSession

can_read_events = requires_permission("audit:read")
"""May the user read the audit log?"""

router_v1 = APIRouter(prefix="/audit/events", tags=["audit"], dependencies=[Depends(can_read_events)])

list_params = ListParamsBuilder(AuditEventListParams, AuditEventSortParam, AuditEventFilterParam)


@router_v1.get("")
async def list_events(
    params: Annotated[AuditEventListParams, Depends(list_params)],
    db: DBSession,
    service: Audit,
    request: Request,
    response: HTTPResponse,
) -> PaginatedResponse[AuditEventRead]:
    """A page of the security events."""
    return PaginatedResponse.of(await service.get_list(params, db=db), request, response)


@router_v1.get("/{audit_event_id}")
async def read_event(audit_event_id: RowId, db: DBSession, service: Audit) -> Response[AuditEventRead]:
    """One security event."""
    return Response(data=await service.get(audit_event_id, db=db))
