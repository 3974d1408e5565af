"""What this module tells others."""

from app.core.services.events import BaseEvent


class UserCreated(BaseEvent):
    """An account exists: registered, or made by an administrator."""

    user_id: int


class UserDeleted(BaseEvent):
    """An account was deleted, by its owner or by an administrator."""

    user_id: int
