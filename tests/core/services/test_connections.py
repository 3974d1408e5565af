"""Connections to the mail server are few, and their loss costs no mail."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.db.jobs import Job, JobStatus
from app.core.db.session import Database
from app.core.runtime import Runtime
from app.core.services.mail import EmailData, SMTPServer
from app.core.services.mail.smtp import MAX_MAILS
from tests.core.services.conftest import make_runner, running, until
from tests.core.services.mail_servers import Post, mailing, serving
from tests.core.services.templates import Ticket

Drain = Callable[[], Awaitable[int]]
Due = Callable[[], Awaitable[None]]
Jobs = Callable[[], Awaitable[Sequence[Job]]]

TICKET = Ticket(name="Ada", seat=7)
DATA = EmailData(subject="Your ticket", recipients=["ada@example.com"])
MANY = EmailData(subject="Your ticket", recipients=[f"p{number}@example.com" for number in range(20)])


@pytest.fixture
def post() -> Post:
    return Post()


def at(port: int, *, idle: float = 10, connections: int = 5) -> SMTPServer:
    return SMTPServer("127.0.0.1", port, tls=False, timeout=5, idle=idle, connections=connections)


class TestReuse:
    async def test_mails_in_a_row_share_one(self, kit: Runtime, db: AsyncSession, drain: Drain, post: Post) -> None:
        async with serving(post) as port, mailing(kit, at(port)) as service:
            await service.queue(TICKET, MANY)
            assert await drain() == 20
        assert len(post.envelopes) == 20
        assert post.connections == 1

    async def test_a_runner_opens_no_more_than_allowed(self, kit: Runtime, committed: Database, post: Post) -> None:
        async with serving(post) as port, mailing(kit, at(port, connections=3)) as service:
            async with kit.database.session_scope():
                await service.queue(TICKET, MANY)
            async with running(make_runner(kit, concurrency=10)):
                await until(lambda: len(post.envelopes) == 20, 20)
        assert post.connections <= 3
        assert sorted(post.recipients()) == sorted(MANY.recipients)

    async def test_one_that_nobody_uses_is_closed(self, kit: Runtime, post: Post) -> None:
        async with serving(post) as port, mailing(kit, at(port, idle=0.02)) as service:
            await service.send(TICKET, DATA)
            await until(lambda: post.open == 0)
            await service.send(TICKET, DATA)
        assert post.connections == 2

    async def test_all_are_closed_with_the_service(self, kit: Runtime, post: Post) -> None:
        async with serving(post) as port:
            async with mailing(kit, at(port)) as service:
                await asyncio.gather(*(service.send(TICKET, DATA) for _ in range(3)))
            await until(lambda: post.open == 0)
        assert post.connections == 3

    async def test_one_is_replaced_after_some_mails(self, kit: Runtime, post: Post) -> None:
        async with serving(post) as port, mailing(kit, at(port)) as service:
            for _ in range(MAX_MAILS + 1):
                await service.send(TICKET, DATA)
        assert post.connections == 2

    async def test_a_refusal_leaves_it_usable(self, kit: Runtime, post: Post) -> None:
        async with serving(post) as port, mailing(kit, at(port)) as service:
            for step in ("rcpt", "data"):
                setattr(post, step, "450 later")
                with pytest.raises(Exception, match="450"):
                    await service.send(TICKET, DATA)
                setattr(post, step, "250 OK")
            await service.send(TICKET, DATA)
        assert (post.connections, len(post.envelopes)) == (1, 1)


class TestLoss:
    async def test_a_server_that_was_restarted_costs_no_attempt(
        self, kit: Runtime, db: AsyncSession, drain: Drain, jobs: Jobs, post: Post
    ) -> None:
        async with AsyncExitStack() as before:
            port = await before.enter_async_context(serving(post))
            async with mailing(kit, at(port)) as service:
                await asyncio.gather(*(service.send(TICKET, DATA) for _ in range(3)))
                await before.aclose()
                async with serving(post, port=port):
                    await service.queue(TICKET, DATA)
                    await drain()
        (job,) = await jobs()
        assert (job.status, job.attempts) == (JobStatus.COMPLETED, 1)
        assert (post.connections, len(post.envelopes)) == (4, 4)

    async def test_one_that_went_silent_is_replaced(self, kit: Runtime, post: Post) -> None:
        """The server ended it with a 421 that nobody was there to read."""
        async with serving(post, timeout=0.05) as port, mailing(kit, at(port)) as service:
            await service.send(TICKET, DATA)
            await until(lambda: post.open == 0)
            await service.send(TICKET, DATA)
        assert (post.connections, len(post.envelopes)) == (2, 2)

    async def test_after_the_content_the_mail_is_repeated_under_its_message_id(
        self, kit: Runtime, db: AsyncSession, drain: Drain, due: Due, jobs: Jobs, post: Post
    ) -> None:
        """Whether it was taken nobody can know: at least once."""
        async with serving(post) as port, mailing(kit, at(port)) as service:
            post.drops_after_data = True
            await service.queue(TICKET, DATA)
            await drain()
            (job,) = await jobs()
            assert (job.status, len(post.envelopes)) == (JobStatus.FAILED, 1)  # not repeated at once
            await due()
            await drain()
        first, second = post.messages()
        assert first["Message-ID"] == second["Message-ID"]

    async def test_a_cancelled_mail_leaves_no_connection(self, kit: Runtime, post: Post) -> None:
        async with serving(post) as port, mailing(kit, at(port)) as service:
            post.stalls = True
            sending = asyncio.create_task(service.send(TICKET, DATA))
            await post.stalled.wait()
            sending.cancel()
            await asyncio.wait([sending])
            await until(lambda: post.open == 0)
