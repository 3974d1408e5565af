"""The cache, in process and in Redis."""

import asyncio
import types
from collections.abc import Awaitable, Callable, Collection
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from pydantic import BaseModel

from app.core.runtime import Runtime
from app.core.services.cache import CacheService, CacheServiceInterface, CacheStore, MemoryStore, NotKept
from app.core.services.cache.interface import namespace_of
from app.core.services.cache.service import MAX_WARNED


class Seat(BaseModel):
    """A value."""

    row: str
    taken_at: datetime


class Scene:
    """Something that is made, and takes until the test says."""

    def __init__(self, error: Exception | None = None) -> None:
        self.begun, self.end = asyncio.Event(), asyncio.Event()
        self.error = error
        self.plays = 0

    async def play(self) -> list[int]:
        self.plays += 1
        number = self.plays
        self.begun.set()
        await self.end.wait()
        if self.error:
            raise self.error
        return [number]


class SlowStore(MemoryStore):
    """What is written arrives when the test says."""

    def __init__(self) -> None:
        super().__init__()
        self.on_its_way, self.arrives = asyncio.Event(), asyncio.Event()

    async def write(self, key: str, data: bytes, seconds: float, tags: Collection[str]) -> bool:
        self.on_its_way.set()
        await self.arrives.wait()
        return await super().write(key, data, seconds, tags)


def returning(value: Any) -> Callable[[], Awaitable[Any]]:
    """A factory of `value`."""

    async def make() -> Any:
        return value

    return make


def store_of(cache: CacheServiceInterface) -> CacheStore:
    """What another service, of another process perhaps, shares with this one."""
    assert isinstance(cache, CacheService)
    return cache._store


@pytest.fixture
def cache(kit: Runtime) -> CacheServiceInterface:
    """The cache of the chosen backend."""
    return kit.cache


@pytest.fixture
def key() -> str:
    return f"test:{uuid4()}"


class TestEveryCache:
    async def test_absent_is_none(self, cache: CacheServiceInterface, key: str) -> None:
        assert await cache.get(key) is None

    @pytest.mark.parametrize("value", [1, 0, "", "text ü\x00", [1, {"a": None}], {"deep": [True]}, 1.5, False])
    async def test_gives_back_what_was_set(self, cache: CacheServiceInterface, key: str, value: object) -> None:
        await cache.set(key, value)
        assert await cache.get(key) == value

    async def test_models_come_back_as_json(self, cache: CacheServiceInterface, key: str) -> None:
        await cache.set(key, Seat(row="A", taken_at=datetime(2026, 1, 2, tzinfo=UTC)))
        assert await cache.get(key) == {"row": "A", "taken_at": "2026-01-02T00:00:00Z"}

    async def test_what_cannot_be_json_is_an_error_not_a_miss(self, cache: CacheServiceInterface, key: str) -> None:
        with pytest.raises(ValueError, match="serialize"):
            await cache.set(key, object())

    async def test_changing_what_was_got_changes_nothing(self, cache: CacheServiceInterface, key: str) -> None:
        value = {"list": [1]}
        await cache.set(key, value)
        value["list"].append(2)
        got = await cache.get(key)
        assert got is not None
        got["list"].append(3)
        assert await cache.get(key) == {"list": [1]}

    async def test_ends_after_its_ttl(self, cache: CacheServiceInterface, key: str) -> None:
        await cache.set(key, 1, ttl=0.05)
        assert await cache.get(key) == 1
        await asyncio.sleep(0.08)
        assert await cache.get(key) is None

    @pytest.mark.parametrize("ttl", [0, -1, float("-inf"), float("nan")])
    async def test_a_ttl_of_nothing_keeps_nothing(self, cache: CacheServiceInterface, key: str, ttl: float) -> None:
        await cache.set(key, 1)
        await cache.set(key, 2, ttl=ttl)
        assert await cache.get(key) is None

    async def test_delete(self, cache: CacheServiceInterface, key: str) -> None:
        await cache.set(key, 1)
        await cache.set(f"{key}:b", 2)
        await cache.delete(key, f"{key}:b", f"{key}:never")
        await cache.delete()
        assert await cache.get(key) is None
        assert await cache.get(f"{key}:b") is None

    async def test_none_is_a_value(self, cache: CacheServiceInterface, key: str) -> None:
        assert await cache.get(key, "absent") == "absent"
        await cache.set(key, None)
        assert await cache.get(key, "absent") is None

    async def test_nothing_outlives_the_longest_life(self, cache: CacheServiceInterface, key: str) -> None:
        short = CacheService(store_of(cache), max_seconds=0.05)
        await short.set(key, 1)
        await short.set(f"{key}:b", 1, ttl=float("inf"))
        assert await short.get(key) == 1
        await asyncio.sleep(0.08)
        assert [await short.get(key), await short.get(f"{key}:b")] == [None, None]

    async def test_a_value_that_is_too_large_is_not_kept_and_said_once(
        self, cache: CacheServiceInterface, key: str, capfd: pytest.CaptureFixture[str]
    ) -> None:
        small = CacheService(store_of(cache), max_value_bytes=100)
        await small.set(key, "old")
        for _ in range(2):
            await small.set(key, "x" * 100)
        assert await small.get(key) is None
        assert await small.get_or_set(key, returning("y" * 100)) == "y" * 100
        assert await small.get(key) is None
        await small.set(key + "k" * 10_000, 1)
        said = capfd.readouterr().out
        assert said.count("too large for the cache") == 2
        assert len(said) < 2000

    async def test_whoever_chooses_the_keys_does_not_fill_the_log(
        self, key: str, capfd: pytest.CaptureFixture[str]
    ) -> None:
        small = CacheService(MemoryStore(), max_value_bytes=10)
        for number in [*range(MAX_WARNED + 10), *range(10)]:
            await small.namespace("tests").set(f"{key}{number}", "x" * 10)
        assert capfd.readouterr().out.count("too large for the cache") == MAX_WARNED


class TestTags:
    async def test_invalidate_forgets_what_was_stored_under_any_of_them(
        self, cache: CacheServiceInterface, key: str
    ) -> None:
        await cache.set("1" + key, 1, tags=["a" + key, "b" + key])
        await cache.set("2" + key, 2, tags=["b" + key])
        await cache.set("3" + key, 3)
        assert [await cache.get(number + key) for number in "123"] == [1, 2, 3]
        assert await cache.invalidate("a" + key)
        assert [await cache.get(number + key) for number in "123"] == [None, 2, 3]
        await cache.invalidate("b" + key, "never" + key)
        assert [await cache.get(number + key) for number in "123"] == [None, None, 3]

    async def test_stored_again_it_counts_again(self, cache: CacheServiceInterface, key: str) -> None:
        for value in (1, 2):
            await cache.set(key, value, tags=[key])
            assert await cache.get(key) == value
            await cache.invalidate(key)

    async def test_what_was_invalidated_while_it_was_made_is_not_kept(
        self, cache: CacheServiceInterface, key: str
    ) -> None:
        async def make() -> int:
            await CacheService(store_of(cache)).namespace("tests").invalidate(key)  # by another process
            return 1

        assert await cache.get_or_set(key, make, tags=[key]) == 1
        assert await cache.get(key) is None
        assert await cache.get_or_set(key, returning(2), tags=[key]) == 2
        assert await cache.get(key) == 2

    @pytest.mark.parametrize("name", ["", " ", "a\nb", "*[a]?\\", "\u2028ü", "\ud800", "a:b", "../a", "n" * 100_000])
    async def test_any_text_is_a_name(self, cache: CacheServiceInterface, key: str, name: str) -> None:
        await cache.set(key + name, 1, tags=[key + name])
        await cache.set(key + "other", 2, tags=[key + "other"])
        assert await cache.get(key + name) == 1
        await cache.invalidate(key + name)
        assert [await cache.get(key + name), await cache.get(key + "other")] == [None, 2]

    async def test_one_text_is_no_list(self, cache: CacheServiceInterface, key: str) -> None:
        with pytest.raises(ValueError, match="must be a list"):
            await cache.set(key, 1, tags="abc")


class TestPatterns:
    async def test_stars_and_question_marks_match_and_everything_else_is_itself(
        self, cache: CacheServiceInterface, key: str
    ) -> None:
        names = ["users:1", "users:12", "users:[1]", "users:a\nb", "Users:1", "posts:1", "users\\1", "jörg"]

        async def left_by(pattern: str) -> set[str]:
            for name in names:
                await cache.set(key + name, 1)
            assert await cache.delete_pattern(key + pattern)
            return {name for name in names if await cache.get(key + name)}

        assert await left_by("users:*") == {"Users:1", "posts:1", "users\\1", "jörg"}
        assert await left_by("users:?") == set(names) - {"users:1"}
        assert await left_by("users:[1]") == set(names) - {"users:[1]"}
        assert await left_by("*s:1") == {"users:12", "users:[1]", "users:a\nb", "users\\1", "jörg"}
        assert await left_by("users\\*") == set(names) - {"users\\1"}
        assert await left_by("j?rg") == set(names) - {"jörg"}
        assert await left_by("users:") == set(names)
        assert await left_by("^*") == set(names)

    async def test_more_keys_than_a_batch(self, cache: CacheServiceInterface, key: str) -> None:
        await asyncio.gather(*(cache.set(f"{key}:{number}", number) for number in range(1200)))
        await cache.set(f"other:{key}", 1)
        await cache.delete_pattern(f"{key}:*")
        assert [await cache.get(f"{key}:{number}") for number in range(1200)] == [None] * 1200
        assert await cache.get(f"other:{key}") == 1


def module(name: str) -> Any:
    """A module of that name which sets and gets."""
    made = types.ModuleType(name)
    code = "def use(cache, method, *args, **kwargs):\n    return getattr(cache, method)(*args, **kwargs)\n"
    exec(code, vars(made))
    return made


class TestNamespaces:
    @pytest.mark.parametrize(
        ("name", "namespace"),
        [
            ("app.auth.services.login", "auth"),
            ("app.auth", "auth"),
            ("app.core.services.cache", "core"),
            ("app", "app"),
            ("billing.routes", "billing"),
            ("__main__", "__main__"),
        ],
    )
    def test_follow_the_module(self, name: str, namespace: str) -> None:
        assert namespace_of(name) == namespace

    async def test_modules_share_no_key_no_tag_and_no_pattern(self, cache: CacheServiceInterface, key: str) -> None:
        auth, audit = module("app.auth.services.x"), module("app.audit.listeners")
        for owner, value in ((auth, "of auth"), (audit, "of audit")):
            await owner.use(cache, "set", key, value, tags=[key])
        await audit.use(cache, "delete_pattern", "*")
        assert await auth.use(cache, "get", key) == "of auth"
        await audit.use(cache, "set", key, "again", tags=[key])
        await audit.use(cache, "invalidate", key)
        assert await auth.use(cache, "get", key) == "of auth"
        await audit.use(cache, "delete", key, f":{key}", f"auth:{key}")
        assert await auth.use(cache, "get", key) == "of auth"
        assert await audit.use(cache, "get_or_set", key, returning("made")) == "made"
        assert await auth.use(cache, "get_or_set", key, returning("made")) == "of auth"

    async def test_parts_of_a_module_meet_whoever_awaits(self, cache: CacheServiceInterface, key: str) -> None:
        await asyncio.create_task(module("app.auth.services.user").use(cache, "set", key, 1))
        (value,) = await asyncio.gather(module("app.auth.listeners").use(cache, "get", key))
        assert value == 1

    async def test_across_modules_by_name(self, cache: CacheServiceInterface, key: str) -> None:
        await module("app.auth.services.user").use(cache, "set", key, 1)
        assert await cache.get(key) is None
        assert await cache.namespace("auth").get(key) == 1
        await cache.namespace("auth").delete(key)
        assert await cache.namespace("auth").get(key) is None

    @pytest.mark.parametrize("name", ["", "auth:users"])
    def test_a_name_is_that_of_a_module(self, cache: CacheServiceInterface, name: str) -> None:
        with pytest.raises(ValueError, match="name of a module"):
            cache.namespace(name)


class TestGetOrSet:
    async def test_makes_what_is_absent_once(self, cache: CacheServiceInterface, key: str) -> None:
        made = []

        async def make() -> dict[str, list[int]]:
            made.append(1)
            return {"list": [1]}

        first = await cache.get_or_set(key, make, ttl=60)
        first["list"].append(2)
        assert await cache.get_or_set(key, make, ttl=60) == {"list": [1]}
        assert await cache.get(key) == {"list": [1]}
        assert len(made) == 1

    async def test_none_is_kept_and_what_is_not_to_be_kept_is_not(self, cache: CacheServiceInterface, key: str) -> None:
        assert await cache.get_or_set(key, returning(NotKept({1})), tags=[key]) == {1}  # any object
        assert await cache.get(key, "absent") == "absent"
        assert await cache.get_or_set(key, returning(None), tags=[key]) is None
        assert await cache.get(key, "absent") is None

    async def test_fifty_at_once_make_it_once(self, cache: CacheServiceInterface, key: str) -> None:
        scene = Scene()
        asking = [asyncio.create_task(cache.get_or_set(key, scene.play, tags=[key])) for _ in range(50)]
        await scene.begun.wait()
        scene.end.set()
        answers = await asyncio.gather(*asking)
        assert answers == [[1]] * 50
        assert scene.plays == 1
        assert len(set(map(id, answers))) == 50  # nobody can change what another got

    async def test_an_error_reaches_all_who_wait_and_is_not_kept(self, cache: CacheServiceInterface, key: str) -> None:
        scene = Scene(LookupError("no seat"))
        asking = [asyncio.create_task(cache.get_or_set(key, scene.play)) for _ in range(5)]
        await scene.begun.wait()
        await asyncio.sleep(0)
        scene.end.set()
        errors = await asyncio.gather(*asking, return_exceptions=True)
        assert [str(error) for error in errors] == ["no seat"] * 5
        assert scene.plays == 1
        assert await cache.get_or_set(key, returning(1)) == 1

    async def test_another_takes_over_where_the_one_who_makes_it_is_cancelled(
        self, cache: CacheServiceInterface, key: str
    ) -> None:
        scene = Scene()
        asking = [asyncio.create_task(cache.get_or_set(key, scene.play)) for _ in range(5)]
        await scene.begun.wait()
        asking[0].cancel()
        scene.end.set()
        first, *others = await asyncio.gather(*asking, return_exceptions=True)
        assert isinstance(first, asyncio.CancelledError)
        assert others == [[2]] * 4
        assert await cache.get(key) == [2]

    async def test_who_waits_may_leave(self, cache: CacheServiceInterface, key: str) -> None:
        scene = Scene()
        asking = [asyncio.create_task(cache.get_or_set(key, scene.play)) for _ in range(2)]
        await scene.begun.wait()
        asking[1].cancel()
        scene.end.set()
        assert (await asyncio.gather(*asking, return_exceptions=True))[0] == [1]

    async def test_what_is_not_to_be_kept_is_made_for_each(self, cache: CacheServiceInterface, key: str) -> None:
        made = []

        async def make() -> NotKept:
            await asyncio.sleep(0)
            made.append(1)
            return NotKept(len(made))

        answers = await asyncio.gather(*(cache.get_or_set(key, make) for _ in range(5)))
        assert sorted(answers) == [1, 2, 3, 4, 5]

    @pytest.mark.parametrize("forget", ["delete", "delete_pattern", "invalidate", "set"])
    async def test_who_asks_after_a_change_is_not_given_what_was_made_before(
        self, cache: CacheServiceInterface, key: str, forget: str
    ) -> None:
        scene = Scene()
        before = asyncio.create_task(cache.get_or_set(key, scene.play, tags=[key]))
        await scene.begun.wait()
        await getattr(cache, forget)(key, *(["new"] if forget == "set" else []))
        after = await cache.get_or_set(key, returning("new"), tags=[key])
        scene.end.set()
        assert (await before, after) == ([1], "new")
        assert await cache.get(key) == "new"
        await cache.delete(key)
        assert await cache.get_or_set(key, returning("newer")) == "newer"

    @pytest.mark.parametrize("forget", ["delete", "delete_pattern"])
    async def test_what_is_forgotten_on_its_way_into_the_store_is_not_kept(self, forget: str) -> None:
        store = SlowStore()
        cache = CacheService(store)
        asking = asyncio.create_task(cache.get_or_set("a", returning("old")))
        await store.on_its_way.wait()
        await getattr(cache, forget)("a")
        store.arrives.set()
        assert await asking == "old"
        assert await cache.get("a") is None
