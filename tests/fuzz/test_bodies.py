"""No body makes a 5xx, comes back in an error, or changes anything where it is refused."""

import httpx
from fastapi import FastAPI
from sqlalchemy import func, select

from app.auth.models import User
from app.core.db.session import Database
from tests.factories.user import UserFactory
from tests.fuzz.bodies import MARKER, TARGETS, Bodies
from tests.fuzz.conftest import EXAMPLES, REPLAY, SEED, Progress
from tests.fuzz.judge import faults, send
from tests.utils import login_user

ECHOES = (MARKER, "\ufffd", "alert(1)", "ßßßß", "🦄🦄", "9" * 30, "0" * 30)


async def test_bodies(app: FastAPI, committed: Database, client: httpx.AsyncClient, progress: Progress) -> None:
    await UserFactory.create_batch(2)
    await login_user(client, await UserFactory.create(is_superuser=True))
    authorization = client.headers["authorization"]
    bodies = Bodies(SEED)
    before = await _live_users(committed)
    found: list[str] = []
    answered: dict[tuple[str, int], int] = {}

    for _ in progress.count():
        request = bodies.next()
        path = f"/api/v1{request.path}"
        headers = {"content-type": request.content_type, "authorization": authorization}
        answer = await send(app, request.method, path, headers=headers, chunks=request.chunks)
        key = (f"{request.method} {request.path}", answer.status)
        answered[key] = answered.get(key, 0) + 1
        found += [f"{request} {request.chunks!r:.500}: {fault}" for fault in faults(answer, ECHOES, path)]

    assert not found, "\n".join([*found[:20], REPLAY])
    created = sum(count for (_, status), count in answered.items() if status == 201)
    assert await _live_users(committed) == before + created, REPLAY
    statuses = sorted({status for _, status in answered})
    progress.say(f"answered {', '.join(map(str, statuses))}")
    assert {name for name, _ in answered} == {f"{target.method} {target.path}" for target in TARGETS} or EXAMPLES < 300


async def _live_users(database: Database) -> int:
    async with database.session() as session:
        return await session.scalar(select(func.count()).where(User.deleted_at.is_(None))) or 0


def test_a_seed_repeats_its_bodies() -> None:
    one, other = Bodies(SEED), Bodies(SEED)
    assert [one.next() for _ in range(100)] == [other.next() for _ in range(100)]
