"""Setup before the first request."""

from app.auth.repositories import RoleRepository
from app.auth.services.accounts import NoFirstUser, ensure_first_user
from app.core.db import session_scope
from app.core.deps import logger
from app.core.identity import current_permissions


async def bootstrap() -> list[str]:
    """Store the catalogue of permissions and the first administrator; return the lines to show once.

    Needs an open runtime.
    """
    async with session_scope() as db:
        gone = await RoleRepository().declare(db=db, permissions=current_permissions().values())
    if gone:
        logger.warning("no module declares permissions that roles hold: they count for nothing", permissions=gone)
    try:
        admin = await ensure_first_user()
    except NoFirstUser as exc:
        return [f"{exc}."]
    if admin is None:
        return []
    password = f"{admin.password} (shown only now)" if admin.password else "the one in FIRST_USER_PASSWORD"
    lines = [f"First admin: {admin.email}", f"Password:    {password}"]
    return [*lines, f"FIRST_USER_PASSWORD should be changed. {admin.weakness}"] if admin.weakness else lines
