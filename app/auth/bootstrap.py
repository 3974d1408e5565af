"""Setup before the first request."""

from app.auth.services.accounts import NoFirstUser, ensure_first_user


async def bootstrap() -> list[str]:
    """Make the first administrator; return the lines to show once. Needs an open runtime."""
    try:
        admin = await ensure_first_user()
    except NoFirstUser as exc:
        return [f"{exc}."]
    if admin is None:
        return []
    password = f"{admin.password} (shown only now)" if admin.password else "the one in FIRST_USER_PASSWORD"
    lines = [f"First admin: {admin.email}", f"Password:    {password}"]
    return [*lines, f"FIRST_USER_PASSWORD should be changed. {admin.weakness}"] if admin.weakness else lines
