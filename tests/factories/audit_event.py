"""Security events for tests."""

import uuid

import factory

from app.audit.models import AuditEvent, Outcome
from app.core.db import utcnow
from tests.factories.async_alchemy_factory import AsyncSQLAlchemyModelFactory


class AuditEventFactory(AsyncSQLAlchemyModelFactory[AuditEvent]):
    """`await AuditEventFactory.create(kind="login_failed", outcome=Outcome.FAILURE)`."""

    class Meta:
        model = AuditEvent

    event_id = factory.LazyFunction(uuid.uuid4)
    kind = "login_succeeded"
    outcome = Outcome.SUCCESS
    actor_id = factory.SelfAttribute("subject_id")
    subject_id = 1
    address = factory.Faker("ipv4")
    user_agent = factory.Faker("user_agent")
    request_id = factory.Sequence(lambda n: f"request-{n}")
    conversation_id = "conversation"
    occurred_at = factory.LazyFunction(utcnow)
    details = factory.LazyFunction(dict)
