"""Log: structured lines that carry the request's ids and no secret."""

from app.core.services.log.context import conversation_id, correlation, request_id
from app.core.services.log.reporting import ErrorReporterInterface
from app.core.services.log.service import LogServiceInterface, configure_logging, logger

__all__ = [
    "ErrorReporterInterface",
    "LogServiceInterface",
    "configure_logging",
    "conversation_id",
    "correlation",
    "logger",
    "request_id",
]
