"""The HTTP contract: envelopes, list queries, limits."""

from app.core.api.health import HealthCheck
from app.core.api.limiter import ConfigurableRateLimiter
from app.core.api.list_queries import ListParamsBuilder
from app.core.api.responses import PaginatedResponse, Response
from app.core.identity import public

__all__ = ["ConfigurableRateLimiter", "HealthCheck", "ListParamsBuilder", "PaginatedResponse", "Response", "public"]
