"""A mail server that is down, grey-lists or refuses for good, and a sender killed while it sends."""

import asyncio
import email
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from app.core.db.jobs import JobStatus
from tests.faults.service import Service, often, strike, tally
from tests.processes import free_port, until


class Post:
    """What arrived, and how the server answers a message: with 250 unless `judge` says otherwise, after `seconds`."""

    def __init__(self) -> None:
        self.delivered: list[tuple[str, str]] = []
        self.judge: Callable[[str, str], str] = lambda recipient, message_id: "250 OK"
        self.seconds = 0.0

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802  aiosmtpd's
        assert isinstance(envelope.content, bytes)
        (recipient,), message_id = envelope.rcpt_tos, email.message_from_bytes(envelope.content)["Message-ID"]
        await asyncio.sleep(self.seconds)
        answer = self.judge(recipient, message_id)
        if answer.startswith("250"):
            self.delivered.append((recipient, message_id))
        return answer


@pytest.fixture
def port(service: Service) -> int:
    """Where the service looks for a mail server."""
    port = free_port()
    service.settings |= {"SMTP_HOST": "127.0.0.1", "SMTP_PORT": str(port), "SMTP_TLS": "false"}
    return port


@contextmanager
def listening(post: Post, port: int) -> Iterator[None]:
    """A mail server in a thread of its own: the test's waits do not hold it up."""
    controller = Controller(post, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        yield
    finally:
        controller.stop()


async def test_every_mail_arrives_once_after_an_outage(service: Service, port: int) -> None:
    post, seen, count = Post(), set[str](), often(20) // 2

    def grey_list(recipient: str, message_id: str) -> str:
        known = message_id in seen
        seen.add(message_id)
        return "250 OK" if known or recipient.startswith("seat") else "451 try again"

    post.judge = grey_list
    with service.front(), service.runner():
        names = [f"user{number}" for number in range(count)]
        assert Counter((await service.register(names)).values()) == {201: count}
        assert await service.post("/faults/mails", count=count) == 200

        def all_wait() -> bool:
            tried = Counter(job.status for job in service.jobs())
            return tried[JobStatus.FAILED] == 2 * count and set(tried) == {JobStatus.FAILED, JobStatus.COMPLETED}

        await until(all_wait)
        with listening(post, port):
            await service.idle(60)
    expected = [f"{name}@example.com" for name in names] + [f"seat{seat}@example.com" for seat in range(count)]
    tally["mails"] += len(expected)
    assert not service.losses(expected, (recipient for recipient, _ in post.delivered))
    assert Counter(recipient for recipient, _ in post.delivered) == dict.fromkeys(expected, 1)
    assert {job.status for job in service.jobs()} == {JobStatus.COMPLETED}


async def test_a_mail_refused_for_good_is_dead_with_its_reason_and_can_be_sent_again(
    service: Service, port: int
) -> None:
    post = Post()
    post.judge = lambda recipient, message_id: "550 no such user"
    with listening(post, port), service.front(), service.runner():
        assert await service.post("/faults/mails") == 200
        await service.idle(30)
        (job,) = service.jobs()
        assert (job.status, job.attempts) == (JobStatus.DEAD, 1)
        assert job.last_error is not None
        assert "550 no such user" in job.last_error
        post.judge = Post().judge
        service.kit("jobs", "retry", str(job.id))
        await service.idle(30)
    assert [recipient for recipient, _ in post.delivered] == ["seat0@example.com"]


async def test_a_mail_whose_sender_is_killed_before_the_answer_keeps_its_message_id(
    service: Service, port: int
) -> None:
    post, arrived, go_on = Post(), threading.Event(), threading.Event()

    def hold(recipient: str, message_id: str) -> str:
        arrived.set()
        go_on.wait(30)
        return "250 OK"

    post.judge = hold
    with listening(post, port), service.front():
        with service.runner() as runner:
            assert await service.post("/faults/mails") == 200
            await until(arrived.is_set)
            strike(runner)
            go_on.set()
        with service.runner():
            await service.idle(60)
    first, second = post.delivered
    assert first == second
    (job,) = service.jobs()
    assert job.status == JobStatus.COMPLETED
