"""`@cached` on path operations and on functions."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID, uuid4

import httpx
import pytest
from fastapi import Depends, FastAPI, Header
from pydantic import BaseModel, ConfigDict, Field, SecretStr
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.db.jobs import Job
from app.core.deps import CacheService, DBSession, cached
from app.core.runtime import Runtime


class Seat(BaseModel):
    """A result."""

    number: int
    sold_at: datetime
    label: str = Field(default="", alias="shownAs")


class Guest(BaseModel):
    """Who asks, as a dependency gives it."""

    id: int
    is_admin: bool = Field(default=False, exclude=True)


class Counter:
    """How often something was really done."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def add(self, value: Any) -> Any:
        self.calls.append(value)
        return value


@pytest.fixture
def counter(kit: Runtime) -> Counter:
    return Counter()


@pytest.fixture
def prefix() -> str:
    """Makes the keys of a test its own."""
    return str(uuid4())


class TestFunction:
    async def test_is_called_once_for_the_same_arguments(self, counter: Counter, prefix: str) -> None:
        @cached(ttl=60)
        async def double(number: int, *, of: str, at: datetime | None = None) -> int:
            counter.add(number)
            return number * 2

        assert [await double(2, of=prefix), await double(2, of=prefix), await double(number=2, of=prefix)] == [4, 4, 4]
        assert counter.calls == [2]
        assert await double(3, of=prefix) == 6
        assert await double(2, of=prefix, at=datetime(2026, 1, 1, tzinfo=UTC)) == 4
        assert counter.calls == [2, 3, 2]

    async def test_gives_back_the_annotated_type_on_a_miss_and_on_a_hit(self, counter: Counter, prefix: str) -> None:
        @cached(ttl=60)
        async def seats(of: str) -> dict[UUID, list[Seat]]:
            counter.add(of)
            return {UUID(of): [Seat(number=1, sold_at=datetime(2026, 1, 2, tzinfo=UTC), shownAs="A1")]}

        miss, hit = await seats(prefix), await seats(prefix)
        assert miss == hit == {UUID(prefix): [Seat(number=1, sold_at=datetime(2026, 1, 2, tzinfo=UTC), shownAs="A1")]}
        assert len(counter.calls) == 1

    async def test_two_functions_share_nothing(self, kit: Runtime, prefix: str) -> None:
        @cached(ttl=60)
        async def one(of: str) -> int:
            return 1

        @cached(ttl=60)
        async def two(of: str) -> int:
            return 2

        assert [await one(prefix), await two(prefix)] == [1, 2]

    async def test_none_is_kept(self, counter: Counter, prefix: str) -> None:
        @cached(ttl=60)
        async def find(of: str) -> int | None:
            counter.add(of)
            return None

        assert [await find(prefix), await find(prefix)] == [None, None]
        assert len(counter.calls) == 1

    async def test_an_error_is_not_kept(self, counter: Counter, prefix: str) -> None:
        @cached(ttl=60)
        async def fail(of: str) -> int:
            counter.add(of)
            raise LookupError("no seat")

        for _ in range(2):
            with pytest.raises(LookupError):
                await fail(prefix)
        assert len(counter.calls) == 2

    async def test_a_key_builder_names_the_key_that_delete_takes(
        self, kit: Runtime, counter: Counter, prefix: str
    ) -> None:
        @cached(ttl=60, key_builder=lambda f, *a, **kw: f"{prefix}:{f.__name__}:{a[0]}")
        async def double(number: int, service: object) -> int:
            return int(counter.add(number)) * 2

        await double(2, object())
        assert await kit.cache.get(f"{prefix}:double:2") == 4
        await kit.cache.delete(f"{prefix}:double:2")
        await double(2, object())
        assert counter.calls == [2, 2]

    async def test_a_prefix_and_tags_name_what_to_forget(self, kit: Runtime, counter: Counter, prefix: str) -> None:
        @cached(ttl=60, prefix=f"{prefix}:squares", tags=lambda number: [f"{prefix}:{number}"])
        async def square(number: int, *, of: str = "") -> int:
            return int(counter.add(number)) ** 2

        @cached(ttl=60, prefix=f"{prefix}:cubes", key_builder=lambda f, number: str(number), tags=[prefix])
        async def cube(number: int) -> int:
            return -(int(counter.add(-number)) ** 3)

        async def calls() -> list[int]:
            counter.calls.clear()
            assert [await square(2), await square(3, of="x"), await cube(2), await cube(3)] == [4, 9, 8, 27]
            return counter.calls

        assert await calls() == [2, 3, -2, -3]
        assert await calls() == []
        await kit.cache.delete_pattern(f"{prefix}:squares:*")
        assert await calls() == [2, 3]
        await kit.cache.delete(f"{prefix}:cubes:2")
        assert await calls() == [-2]
        await kit.cache.invalidate(f"{prefix}:3", prefix)
        assert await calls() == [3, -2, -3]

    async def test_its_names_are_those_of_its_own_module(self, kit: Runtime, counter: Counter, prefix: str) -> None:
        async def load(of: str) -> int:
            return len(counter.add(of))

        load.__module__ = "app.auth.services.user"
        remembered = cached(ttl=60, key_builder=lambda f, of: of)(load)
        await remembered(prefix)
        assert await kit.cache.get(prefix) is None
        assert await kit.cache.namespace("auth").get(prefix) == len(prefix)

    def test_tags_are_made_of_arguments_there_are(self) -> None:
        async def find(number: int) -> int:
            return number

        with pytest.raises(TypeError, match="has no argument user_id to make tags of"):
            cached(ttl=60, tags=lambda user_id: [user_id])(find)

    def test_one_text_is_no_list_of_tags(self) -> None:
        with pytest.raises(TypeError, match="list of tags"):
            cached(ttl=60, tags="users")

    async def test_a_value_of_another_version_is_a_miss(self, kit: Runtime, prefix: str) -> None:
        @cached(ttl=60, key_builder=lambda f: prefix)
        async def seat() -> Seat:
            return Seat(number=5, sold_at=datetime(2026, 1, 2, tzinfo=UTC))

        await kit.cache.set(prefix, {"row": "old"}, ttl=60)
        assert (await seat()).number == 5
        assert (await kit.cache.get(prefix))["number"] == 5

    async def test_an_argument_that_is_no_value_needs_a_key_builder(self, kit: Runtime) -> None:
        class Principal:
            """Whoever asks: leaving it out would show one's result to another."""

        @cached(ttl=60)
        async def secret_of(principal: Principal) -> int:
            return 1

        with pytest.raises(TypeError, match=r"needs a key_builder for .*secret_of"):
            await secret_of(Principal())

    async def test_secrets_look_alike_and_need_a_key_builder(self, kit: Runtime) -> None:
        @cached(ttl=60)
        async def owner_of(token: SecretStr) -> int:
            return 1

        with pytest.raises(TypeError, match="secrets look all the same"):
            await owner_of(SecretStr("one"))

    async def test_a_secret_deep_in_an_argument_is_found(self, kit: Runtime) -> None:
        @dataclass
        class Lock:
            keys: list[SecretStr]

        @cached(ttl=60)
        async def owner_of(locks: dict[str, Lock]) -> int:
            return 1

        with pytest.raises(TypeError, match="secrets look all the same"):
            await owner_of({"front": Lock([SecretStr("one")])})

    async def test_text_that_looks_like_a_hidden_secret_is_a_value(self, kit: Runtime, prefix: str) -> None:
        @cached(ttl=60)
        async def echo(text: str, of: str) -> str:
            return text

        assert await echo("*" * 10, prefix) == "*" * 10

    async def test_a_dataclass_is_a_value(self, counter: Counter, prefix: str) -> None:
        @dataclass
        class Place:
            row: str

        @cached(ttl=60)
        async def price(place: Place, of: str) -> int:
            counter.add(place.row)
            return 1

        for row in "AAB":
            await price(Place(row), prefix)
        assert counter.calls == ["A", "B"]

    async def test_whatever_a_model_holds_is_part_of_the_key(self, kit: Runtime, prefix: str) -> None:
        class Filter(BaseModel):
            model_config = ConfigDict(extra="allow")

        @dataclass
        class Party:
            guests: list[Guest]

        @cached(ttl=60)
        async def extra(wanted: Filter, of: str) -> dict[str, Any]:
            return wanted.model_extra or {}

        @cached(ttl=60)
        async def admins(party: Party, of: str) -> list[bool]:
            return [guest.is_admin for guest in party.guests]

        assert [await extra(Filter(row=row), prefix) for row in "AB"] == [{"row": "A"}, {"row": "B"}]
        guests = [Guest(id=1, is_admin=is_admin) for is_admin in (True, False)]
        assert [await admins(Party([guest]), prefix) for guest in guests] == [[True], [False]]

    async def test_a_secret_is_not_kept_and_nobody_is_given_stars(self, kit: Runtime, prefix: str) -> None:
        class Account(BaseModel):
            token: SecretStr

        @cached(ttl=60)
        async def account(of: str) -> list[Account]:
            return [Account(token=SecretStr(of))]

        with pytest.raises(TypeError, match=r"cannot keep what .*account returned: it holds a secret"):
            await account(prefix)

    @pytest.mark.parametrize("ttl", [float("nan"), float("inf")])
    def test_the_time_is_a_number(self, ttl: float) -> None:
        with pytest.raises(ValueError, match="number of seconds"):
            cached(ttl=ttl)

    async def test_a_result_that_cannot_be_kept_is_an_error(self, kit: Runtime, prefix: str) -> None:
        @cached(ttl=60)
        async def unknown(of: str):  # type: ignore[no-untyped-def]  # noqa: ANN202  without an annotation
            return object()

        @cached(ttl=60)
        async def row(of: str) -> Job:
            return Job()

        with pytest.raises(TypeError, match=r"cannot keep what .*unknown returned"):
            await unknown(prefix)
        with pytest.raises(TypeError, match=r"cannot keep what .*row returns"):
            await row(prefix)

    def test_takes_coroutine_functions_only(self) -> None:
        def plain() -> int:
            return 1

        with pytest.raises(TypeError, match="async def"):
            cached(ttl=60)(plain)  # type: ignore[arg-type]  # the mistake


class TestRoute:
    @pytest.fixture
    def web(self, counter: Counter, prefix: str) -> FastAPI:
        web = FastAPI()

        async def guest(x_guest: Annotated[int, Header()]) -> Guest:
            return Guest(id=x_guest, is_admin=x_guest == 1)

        @web.get(f"/{prefix}/seats/{{number}}")
        @cached(ttl=60, key_builder=lambda f, *a, **kw: f"{prefix}:{kw['number']}")
        async def seat(number: int, cache: CacheService) -> Seat:
            counter.add(number)
            return Seat(number=number, sold_at=datetime(2026, 1, 2, tzinfo=UTC), shownAs=f"A{number}")

        @web.get(f"/{prefix}/mine")
        @cached(ttl=60)
        async def mine(db: DBSession, who: Annotated[Guest, Depends(guest)], of: str = prefix) -> dict[str, bool]:
            counter.add(who.id)
            assert isinstance(db, AsyncSession)
            return {f"guest {who.id}": who.is_admin}

        return web

    @pytest.fixture
    async def http(self, web: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(web), base_url="http://test") as http:
            yield http

    async def test_a_hit_is_the_answer_of_the_miss(
        self, http: httpx.AsyncClient, counter: Counter, prefix: str
    ) -> None:
        answers = [await http.get(f"/{prefix}/seats/7") for _ in range(2)]
        assert answers[0].json() == {"number": 7, "sold_at": "2026-01-02T00:00:00Z", "shownAs": "A7"}
        assert answers[1].content == answers[0].content
        assert counter.calls == [7]

    async def test_parameters_are_still_validated(self, http: httpx.AsyncClient, prefix: str) -> None:
        assert (await http.get(f"/{prefix}/seats/seven")).status_code == 422

    async def test_users_share_no_entry_and_sessions_are_no_part_of_the_key(
        self, http: httpx.AsyncClient, counter: Counter, prefix: str
    ) -> None:
        async def ask(guest: int) -> Any:
            return (await http.get(f"/{prefix}/mine", headers={"X-Guest": str(guest)})).json()

        assert await ask(1) == await ask(1) == {"guest 1": True}
        assert await ask(2) == {"guest 2": False}
        assert counter.calls == [1, 2]

    async def test_the_documentation_shows_the_original_signature(self, web: FastAPI, prefix: str) -> None:
        operation = web.openapi()["paths"][f"/{prefix}/seats/{{number}}"]["get"]
        assert [parameter["name"] for parameter in operation["parameters"]] == ["number"]
        assert operation["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].endswith("/Seat")
