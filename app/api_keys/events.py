"""Events of this module. `user_id` is the owner of the key; none holds a secret."""

from app.auth import CredentialEvent, CredentialRefused


class ApiKeyCreated(CredentialEvent):
    """A key was made."""

    api_key_id: int
    scopes: tuple[str, ...]


class ApiKeyRotated(CredentialEvent):
    """A key has another secret; the one before ends after the overlap."""

    api_key_id: int
    overlap_seconds: int


class ApiKeyRevoked(CredentialEvent):
    """A key was revoked, or its owner was disabled or given another password by a reset."""

    api_key_id: int


class ApiKeyRefused(CredentialRefused):
    """The right secret of a key came after its end, or while its owner cannot act. Once an hour for each key."""

    api_key_id: int


class ServiceAccountCreated(CredentialEvent):
    """An account was made that nobody can log in to."""
