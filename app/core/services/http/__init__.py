"""HTTP client: calls to other services with limits, retries, a circuit breaker, and a guard for URLs from users."""

from app.core.services.http.client import HttpClient
from app.core.services.http.interface import HttpClientInterface

__all__ = ["HttpClient", "HttpClientInterface"]
