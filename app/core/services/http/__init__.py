"""HTTP client: calls to other services, with bounds, retries, a circuit breaker, a guard for addresses users give."""

from app.core.services.http.client import HttpClient
from app.core.services.http.interface import HttpClientInterface

__all__ = ["HttpClient", "HttpClientInterface"]
