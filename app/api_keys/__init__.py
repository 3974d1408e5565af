"""API keys and service accounts: programs call with no more rights than the owner of their key has."""

from app.api_keys.events import ApiKeyCreated, ApiKeyRefused, ApiKeyRevoked, ApiKeyRotated
from app.api_keys.routers import router_v1

__all__ = ["ApiKeyCreated", "ApiKeyRefused", "ApiKeyRevoked", "ApiKeyRotated", "router_v1"]
