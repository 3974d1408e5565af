"""Both secrets are changed while two server processes answer: no request fails."""

import asyncio
import random
import signal
from collections import Counter
from contextlib import ExitStack

import httpx
import pytest

from tests.faults.service import Service, running, tally
from tests.processes import free_port, until
from tests.utils import PASSWORD

OLD, NEW = "5f2c8e1b7d3a496083bfae2d61c7905e", "9e1d7c3b5a2f48607d3c9eb1f04a2586"
ROLLOUTS = (
    {"": OLD},
    {"": OLD, "NEXT_": NEW},
    {"": NEW, "PREVIOUS_": OLD},
    {"": NEW},
)
"""The values of each rollout, by what stands before SECRET_KEY."""


def secrets(rollout: dict[str, str]) -> dict[str, str]:
    """The settings of a process in a rollout: those that it leaves out are empty."""
    values = {kind: rollout.get(kind, "") for kind in ("", "NEXT_", "PREVIOUS_")}
    secret = {f"{kind}SECRET_KEY": value for kind, value in values.items()}
    return secret | {f"JWT_{kind}SECRET_KEY": value and f"jwt{value}" for kind, value in values.items()}


class Visitor:
    """Somebody who reads the profile and refreshes the tokens, at whichever process is there."""

    def __init__(self, service: Service, ports: list[int], name: str) -> None:
        self._service, self._ports, self._name = service, ports, name
        self.rounds = 0
        self.failed: Counter[str] = Counter()

    async def come(self, done: asyncio.Event) -> None:
        body = {"username": self._name, "password": PASSWORD}
        tokens = (await self._ask("POST", "/auth/login", json=body)).json()
        while not done.is_set():
            headers = {"Authorization": f"Bearer {tokens['access_token']}"}
            await self._ask("GET", "/profile", headers=headers)
            answer = await self._ask("POST", "/auth/refresh-token", json={"refresh_token": tokens["refresh_token"]})
            tokens = answer.json()
            self.rounds += 1

    async def _ask(self, method: str, path: str, **given: object) -> httpx.Response:
        while True:
            try:
                async with self._service.client(random.choice(self._ports)) as http:
                    answer = await http.request(method, path, **given)  # type: ignore[arg-type]  # what it takes
            except httpx.ConnectError:
                await asyncio.sleep(0.05)  # that process is being exchanged: a proxy would ask the other
                continue
            if answer.status_code != 200:
                self.failed[f"{answer.status_code} {path} {answer.text[:200]}"] += 1
            return answer


async def test_a_rotation_in_three_rollouts_fails_no_request(service: Service) -> None:
    if not service.served:
        pytest.skip("needs PostgreSQL and Redis")
    names = [f"user{number}" for number in range(4)]
    service.settings |= secrets(ROLLOUTS[0]) | {"WORKER_IN_APP": "true"}
    ports, done = [service.port, free_port()], asyncio.Event()
    visitors = [Visitor(service, ports, name) for name in names]

    async def all_were_answered() -> None:
        """Until each has tokens of these keys, whichever process made them."""
        enough = [visitor.rounds + 3 for visitor in visitors]
        await until(lambda: all(one.rounds >= least for one, least in zip(visitors, enough, strict=True)))

    with ExitStack() as stack:
        servers = [running(stack, service.app(port)) for port in ports]
        await service.register(names)
        crowd = [asyncio.create_task(visitor.come(done)) for visitor in visitors]
        await all_were_answered()
        for rollout in ROLLOUTS[1:]:
            service.settings |= secrets(rollout)
            for number, port in enumerate(ports):
                servers[number].send_signal(signal.SIGTERM)
                await until(lambda number=number: servers[number].poll() is not None)  # type: ignore[misc]  # no name
                server = service.app(port)
                servers[number] = await asyncio.to_thread(running, stack, server)
                await all_were_answered()
        done.set()
        await asyncio.gather(*crowd)
    tally["requests"] += 2 * sum(visitor.rounds for visitor in visitors)
    assert [visitor.failed for visitor in visitors] == [{}] * len(visitors)
