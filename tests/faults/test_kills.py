"""`kill -9`: what was committed happens all the same, what was not never does."""

import asyncio
import random
from collections import Counter
from contextlib import ExitStack

from app.core.db.jobs import JobStatus
from tests.faults.load import AFTER, Load, settle
from tests.faults.routers import NOBODY
from tests.faults.service import AT_ONCE, Service, often, strike, tally
from tests.processes import Process, until
from tests.utils import PASSWORD

NO_ANSWER = {"ConnectError", "ReadError", "WriteError", "RemoteProtocolError"}
"""What a client raises whose server died."""


class TestRegistrations:
    async def test_every_committed_user_is_greeted_and_heard_of(self, service: Service) -> None:
        for number in range(often(10) // 10):
            with ExitStack() as stack:
                processes = [stack.enter_context(service.app())]
                if service.served:
                    processes.append(stack.enter_context(service.worker()))
                answered = await self._cut_short(service, number, processes)
            assert set(answered.values()) <= {201}
            with ExitStack() as stack:
                stack.enter_context(service.app())
                if service.served:
                    stack.enter_context(service.worker())
                await service.idle(30)
            self._check(service, answered)

    async def _cut_short(self, service: Service, number: int, processes: list[Process]) -> dict[str, int]:
        names = [f"user{number}.{index}" for index in range(often(15))]
        # Not before the first answer: there must be something to lose.
        point, delay = random.randrange(AT_ONCE, len(names)), random.uniform(0, 0.03)
        victims = processes[: random.randint(1, len(processes))]
        print(f"round {number}: {len(victims)} killed {delay * 1000:.0f} ms after request {point}")

        def sent(index: int) -> None:
            if index == point:
                asyncio.get_running_loop().call_later(delay, strike, *victims)

        assert await service.post("/faults/refused") == 409
        answered = await service.register(names, sent)
        await until(lambda: processes[0].poll() is not None)
        return answered

    def _check(self, service: Service, answered: dict[str, int]) -> None:
        users = service.users()
        tally["users"] = len(users)
        assert {f"{name}@example.com" for name in answered} <= set(users.values())
        assert not service.losses(users.values(), (mail["To"] for mail in service.mail.messages()))
        assert Counter(mail["To"] for mail in service.mail.messages()) == Counter(users.values())
        for listener in ("heard", "overheard"):
            told = [int(user) for (user,) in service.journal.of(listener)]
            assert not service.losses(users, told)
            assert NOBODY not in told
        assert not service.jobs("faults.work")
        assert {job.status for job in service.jobs()} == {JobStatus.COMPLETED}


class TestErasure:
    async def test_a_kill_between_two_modules_leaves_nothing_of_the_user(self, service: Service) -> None:
        # In this order audit erases, then the interruption comes, then auth.
        service.settings |= {"USER_ERASURE_DAYS": "0", "MODULES": "tests.faults,app.*"}
        with ExitStack() as stack:
            processes = [stack.enter_context(service.app())]
            if service.served:
                processes.append(stack.enter_context(service.worker()))
            await service.register(["ann"])
            async with service.client() as http:
                login = (await http.post("/auth/login", json={"username": "ann", "password": PASSWORD})).json()
                http.headers["Authorization"] = f"Bearer {login['access_token']}"
                await http.request("DELETE", "/profile", json={"current_password": PASSWORD})
            await until(lambda: processes[-1].poll() is not None, 30)
            tally["kills"] += 1
        assert list(service.users().values()) == ["ann@example.com"]

        with service.runner():
            await until(lambda: "ann@example.com" not in service.users().values(), 60)

        assert len(service.journal.of("erasing")) > 1
        ((user_id, email),) = service.users().items()
        assert email == f"erased-{user_id}@invalid"


class TestTasks:
    async def test_each_is_completed_once_however_often_its_process_is_killed(self, service: Service) -> None:
        with service.front():
            for _ in range(often(3)):
                await self._kill_amid_work(service)
            with service.runner():
                await service.idle(60)
        rows = service.jobs("faults.work")
        tally["tasks"] += len(rows)
        assert len(rows) == 5 * often(3)
        assert {row.status for row in rows} == {JobStatus.COMPLETED}
        assert not service.losses((str(row.id) for row in rows), (job for job, *_ in service.journal.of("done")))
        attempts = Counter((job, attempt) for job, attempt, _ in service.journal.of("started"))
        assert set(attempts.values()) == {1}

    async def _kill_amid_work(self, service: Service) -> None:
        with service.runner() as runner:
            before = len(service.journal.of("started"))
            assert await service.post("/faults/work", count=5, seconds=0.3) == 200
            await until(lambda: len(service.journal.of("started")) > before)
            delay = random.uniform(0, 0.3)
            await asyncio.sleep(delay)  # any moment will do
            print(f"killed {delay * 1000:.0f} ms after a task began")
            strike(runner)


class TestLoad:
    async def test_servers_and_workers_are_killed_in_turn_and_nothing_is_lost(self, service: Service) -> None:
        service.settings["ACCESS_TOKEN_EXPIRE_MINUTES"] = "600"
        with ExitStack() as stack:
            app, worker = stack.enter_context(service.app()), stack.enter_context(service.runner_beside())
            async with Load.on(service) as load:
                load.breaks()
                for _ in range(often(1)):
                    await asyncio.sleep(random.uniform(0.2, 1))
                    strike(app)
                    app = await asyncio.to_thread(stack.enter_context, service.app())
                    if worker:
                        await asyncio.sleep(random.uniform(0.2, 1))
                        strike(worker)
                        worker = stack.enter_context(service.runner_beside())
                load.mends()
                await asyncio.sleep(AFTER)
            await settle(f"server{' and worker' * bool(worker)} killed x {often(1)}", load, again=True)
        assert set(load.outcomes()) <= {"200", "201", "503", *NO_ANSWER}  # 503: from the next one, while it starts
        assert load.failed_after() == []
