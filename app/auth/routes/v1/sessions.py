"""The caller's sessions."""

from fastapi import APIRouter, status

from app.auth.deps import CurrentCaller, Sessions
from app.auth.schemas.auth import SessionRead
from app.core.api import Response
from app.core.api.inputs import RowId
from app.core.deps import DBSession

router = APIRouter(prefix="/auth/sessions", tags=["sessions"])


@router.get("")
async def list_sessions(db: DBSession, service: Sessions, caller: CurrentCaller) -> Response[list[SessionRead]]:
    """The caller's live sessions, the latest used first."""
    return Response(data=await service.get_list(caller.user.id, db=db, current_id=caller.session_id))


@router.delete("/{session_id}", status_code=status.HTTP_204_NO_CONTENT)
async def end_session(session_id: RowId, db: DBSession, service: Sessions, caller: CurrentCaller) -> None:
    """End one of the caller's sessions."""
    await service.end(session_id, db=db, user_id=caller.user.id)
