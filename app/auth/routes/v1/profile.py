"""The caller's account and sessions."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.background import BackgroundTask

from app.auth.deps import (
    CurrentCaller,
    CurrentUser,
    Reauthenticate,
    Services,
    active_user,
    current_caller,
    guesses,
    open_before_password_change,
    reauthentication,
)
from app.auth.events import PersonalDataExported
from app.auth.schemas.auth import (
    AccountDeletion,
    Confirmation,
    PasswordChange,
    PersonalDataRead,
    ProfileUpdate,
    SessionRead,
)
from app.auth.schemas.user import UserResponse
from app.core.api import ConfigurableRateLimiter, Response
from app.core.api.input_guard import JSON
from app.core.api.inputs import RowId
from app.core.deps import DBSession
from app.core.services.personal_data import export_personal_data

sessions = APIRouter(prefix="/auth/sessions", tags=["sessions"], max_body_size=16 * 1024)
router = APIRouter(prefix="/profile", tags=["profile"], max_body_size=16 * 1024)

guarded = [Depends(active_user), guesses]
confirmed = [Depends(current_caller), guesses]


@sessions.get("")
async def list_sessions(db: DBSession, services: Services, caller: CurrentCaller) -> Response[list[SessionRead]]:
    """The caller's live sessions, the latest used first."""
    return Response(data=await services.sessions.get_list(caller.user.id, db=db, current_id=caller.session_id))


@sessions.delete("/{session_id}", status_code=204, dependencies=confirmed)
async def end_session(
    session_id: RowId, db: DBSession, services: Services, caller: CurrentCaller, body: Confirmation | None = None
) -> None:
    """End one of the caller's sessions; another than the own needs a login of the last 15 minutes or the password."""
    await services.sessions.end(caller, session_id, body.current_password if body else None, db=db)


exports = ConfigurableRateLimiter(times=5, seconds=3600, name="personal-data-export")
PRIVATE_FILE = {"Cache-Control": "no-store", "Content-Disposition": 'attachment; filename="personal-data.json"'}


@router.get("")
@open_before_password_change
async def read_profile(user: CurrentUser) -> Response[UserResponse]:
    """The caller's account."""
    return Response(data=user)


@router.get(
    "/export",
    response_class=JSONResponse,
    responses={200: {"model": Response[PersonalDataRead]}},
    dependencies=[Depends(active_user), Depends(exports)],
)
async def export_profile(
    db: DBSession,
    services: Services,
    caller: CurrentCaller,
    confirm: Annotated[Reauthenticate, Depends(reauthentication)],
) -> StreamingResponse:
    """Everything that is kept about the caller, without secrets; needs a login of the last 15 minutes."""
    await confirm(None)
    services.profile.events.dispatch(PersonalDataExported(user_id=caller.user.id, actor_id=caller.user.id))
    file = await export_personal_data(caller.user.id, db=db)
    pieces = iter(partial(file.read, 64 * 1024), b"")
    return StreamingResponse(pieces, media_type=JSON, headers=PRIVATE_FILE, background=BackgroundTask(file.close))


@router.patch("", dependencies=guarded)
async def update_profile(
    body: ProfileUpdate, db: DBSession, services: Services, caller: CurrentCaller
) -> Response[UserResponse]:
    """Change name or address. A new address needs `current_password`, and counts once verified where that is on."""
    return Response(data=await services.profile.update(caller, body, db=db))


@router.post("/password", status_code=204, dependencies=guarded)
@open_before_password_change
async def change_password(body: PasswordChange, db: DBSession, services: Services, caller: CurrentCaller) -> None:
    """Set a new password. The caller's other sessions end."""
    await services.profile.change_password(caller, body, db=db)


@router.delete("", status_code=204, dependencies=guarded)
async def delete_profile(body: AccountDeletion, db: DBSession, services: Services, caller: CurrentCaller) -> None:
    """Delete the caller's account and end its sessions."""
    await services.profile.delete(caller, body.current_password, db=db)
