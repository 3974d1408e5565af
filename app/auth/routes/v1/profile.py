"""The caller's own account."""

from fastapi import APIRouter, Depends, status

from app.auth.deps import CurrentCaller, CurrentUser, Profiles, active_user
from app.auth.schemas.profile import AccountDeletion, PasswordChange, ProfileUpdate
from app.auth.schemas.user import UserResponse
from app.core.api import ConfigurableRateLimiter, Response
from app.core.deps import DBSession

router = APIRouter(prefix="/profile", tags=["profile"], max_body_size=16 * 1024)

# A stolen access token must not be a way to guess the password: guesses count for the user, wherever they come from.
may_guess = [Depends(active_user), Depends(ConfigurableRateLimiter(times=10, seconds=60, name="current-password"))]


@router.get("")
async def read_profile(user: CurrentUser) -> Response[UserResponse]:
    """The caller's account."""
    return Response(data=user)


@router.patch("", dependencies=may_guess)
async def update_profile(
    body: ProfileUpdate, db: DBSession, service: Profiles, caller: CurrentCaller
) -> Response[UserResponse]:
    """Change name or address. A new address needs `current_password`, and counts once verified where that is on."""
    return Response(data=await service.update(caller.user.id, body, db=db, session_id=caller.session_id))


@router.post("/password", status_code=status.HTTP_204_NO_CONTENT, dependencies=may_guess)
async def change_password(body: PasswordChange, db: DBSession, service: Profiles, caller: CurrentCaller) -> None:
    """Set a new password. The caller's other sessions end."""
    await service.change_password(caller.user.id, body, db=db, session_id=caller.session_id)


@router.delete("", status_code=status.HTTP_204_NO_CONTENT, dependencies=may_guess)
async def delete_profile(body: AccountDeletion, db: DBSession, service: Profiles, caller: CurrentCaller) -> None:
    """Delete the caller's account and end its sessions."""
    password = body.current_password.get_secret_value()
    await service.delete(caller.user.id, db=db, password=password, session_id=caller.session_id)
