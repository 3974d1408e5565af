"""The template of these tests' mails; only a route imports it."""

from tests.core.services.templates import Ticket

__all__ = ["Ticket"]
