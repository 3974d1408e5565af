"""Metrics of accounts."""

from app.core.metrics import Counter

logins = Counter("auth_logins", "Logins by outcome: succeeded, or the reason of the refusal.", "outcome")
