"""`@cached` on path operations: whose answer it is, how long it is fresh, and who has it already."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import uuid4

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Request, Response
from fastapi.security import APIKeyHeader
from pydantic import BaseModel, SecretStr
from starlette.middleware.gzip import GZipMiddleware

from app.core.api.openapi import DocumentedAPI
from app.core.db import Database
from app.core.deps import CacheService, DBSession, cached
from app.core.identity import Principal, credential_headers, remember_principal
from app.core.runtime import Runtime
from app.core.services.cache import CacheServiceInterface, Found, MemoryStore
from app.core.services.cache.service import CacheService as Cache
from tests.utils import freeze

ANSWER = {"value": {"number": 9}, "headers": [["Link", "</a>"]], "etag": f'W/"{"0" * 32}"', "until": None}


def credentials() -> str:
    """The headers that may hold a credential, in the order of `Vary`; modules add some."""
    return ", ".join(["Authorization", "Cookie", *credential_headers()])


class Seat(BaseModel):
    """A result."""

    number: int
    label: str = ""


class House:
    """Operations that count how often they were really carried out."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.calls: list[Any] = []
        self.scene: Callable[[], Any] = lambda: asyncio.sleep(0)
        self.web = FastAPI()
        self.router = APIRouter(prefix="/members", dependencies=[Depends(self.guest)])

    async def guest(self, request: Request, authorization: Annotated[str | None, Header()] = None) -> None:
        """Whoever the header names is proven; `nobody` may not come in."""
        if authorization == "nobody":
            raise HTTPException(403)
        if authorization:
            name, _, scope = authorization.partition("/")
            held = frozenset(scope.split("+"))
            caller = Principal(kind="user", id=7, user=None, scope=held)
            remember_principal(request, caller if scope else f"user:{name}")

    def key(self, function: object, *args: Any, **kwargs: Any) -> str:
        return f"{self.prefix}:{kwargs.get('number', '')}"


@pytest.fixture
def cache(kit: Runtime) -> CacheServiceInterface:
    return kit.cache


@pytest.fixture
def house(kit: Runtime) -> House:
    house = House(str(uuid4()))

    @house.web.get("/seats/{number}")
    @cached(ttl=60, key_builder=house.key, tags=lambda number: [f"{house.prefix}:{number}"])
    async def seat(number: int) -> Seat:
        house.calls.append(number)
        await house.scene()
        return Seat(number=number, label="x" * 2000 if number == 2000 else "")

    @house.router.get("/mine")
    @cached(ttl=60, key_builder=house.key)
    async def mine(request: Request) -> dict[str, str]:
        house.calls.append("mine")
        return {"of": request.headers.get("authorization", "nobody")}

    @house.router.get("/shared")
    @cached(ttl=60, key_builder=house.key, prefix="shared", private=False)
    async def shared(request: Request) -> int:
        house.calls.append("shared")
        return 1

    house.web.include_router(house.router)
    return house


@pytest.fixture
async def http(house: House) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(house.web), base_url="http://test") as http:
        yield http


class TestCaller:
    async def ask(self, http: httpx.AsyncClient, who: str, path: str = "/members/mine") -> Any:
        return (await http.get(path, headers={"Authorization": who})).json()

    async def test_each_caller_is_answered_for_themselves(self, http: httpx.AsyncClient, house: House) -> None:
        assert [await self.ask(http, who) for who in ("ann", "bob", "ann", "bob")] == [
            {"of": "ann"},
            {"of": "bob"},
            {"of": "ann"},
            {"of": "bob"},
        ]
        assert (await http.get("/members/mine")).json() == {"of": "nobody"}
        assert house.calls == ["mine"] * 3

    async def test_a_narrowed_credential_has_entries_of_its_own(self, http: httpx.AsyncClient, house: House) -> None:
        """What a caller sees may depend on permissions that another token of theirs does not carry."""
        for credential in ("7", "7/a:read", "7/a:read+b:read", "7/b:read+a:read"):
            await http.get("/members/mine", headers={"Authorization": credential})
        assert len(house.calls) == 3, "the order of a scope makes no difference"

    async def test_unless_the_operation_says_otherwise(self, http: httpx.AsyncClient, house: House) -> None:
        assert [await self.ask(http, who, "/members/shared") for who in ("ann", "bob")] == [1, 1]
        assert house.calls == ["shared"]

    async def test_who_may_not_ask_is_refused_on_a_hit_too(self, http: httpx.AsyncClient, house: House) -> None:
        await self.ask(http, "ann", "/members/shared")
        answer = await http.get("/members/shared", headers={"Authorization": "nobody", "If-None-Match": "*"})
        assert answer.status_code == 403
        assert "etag" not in answer.headers

    async def test_delete_takes_the_key_of_the_key_builder_and_forgets_it_for_all(
        self, http: httpx.AsyncClient, house: House, cache: CacheServiceInterface
    ) -> None:
        for _ in range(2):
            assert [await self.ask(http, who) for who in ("ann", "bob")] == [{"of": "ann"}, {"of": "bob"}]
            await cache.delete(house.key(None))
        assert house.calls == ["mine"] * 4

    async def test_so_does_a_pattern(self, http: httpx.AsyncClient, house: House, cache: CacheServiceInterface) -> None:
        for pattern in (house.key(None), house.key(None)[:-1] + "?"):
            await self.ask(http, "ann")
            await cache.delete_pattern(pattern)
        await self.ask(http, "ann")
        assert house.calls == ["mine"] * 3

    async def test_nobody_can_name_the_entry_of_another(self, http: httpx.AsyncClient, house: House) -> None:
        @house.router.get("/search")
        @cached(ttl=60, key_builder=lambda f, text, **others: f"{house.prefix}:{text}")
        async def search(text: str, request: Request) -> str:
            return f"for {request.headers.get('authorization', 'nobody')}"

        house.web.include_router(house.router)
        assert await self.ask(http, "ann", "/members/search?text=a") == "for ann"
        assert (await http.get("/members/search", params={"text": "a\x1fuser:ann"})).json() == "for nobody"


class TestFreshness:
    async def test_says_how_long_it_is_still_fresh(self, http: httpx.AsyncClient, house: House) -> None:
        now = datetime.now(UTC)
        said = []
        for seconds in (0, 20):
            with freeze((now + timedelta(seconds=seconds)).isoformat()):
                said.append((await http.get("/seats/1")).headers["cache-control"])
        assert said == ["public, max-age=60", "public, max-age=40"]
        assert house.calls == [1]

    @pytest.mark.parametrize("header", ["Authorization", "Cookie"])
    async def test_is_private_where_credentials_were_sent(self, http: httpx.AsyncClient, header: str) -> None:
        answer = await http.get("/seats/1", headers={header: "secret=1"})
        assert answer.headers["cache-control"].startswith("private, max-age=")

    async def test_is_private_where_the_caller_is_proven_even_if_the_entry_is_shared(
        self, http: httpx.AsyncClient
    ) -> None:
        answer = await http.get("/members/shared", headers={"Authorization": "ann"})
        assert answer.headers["cache-control"].startswith("private, max-age=")

    async def test_varies_by_credentials_and_declared_headers(self, http: httpx.AsyncClient, house: House) -> None:
        @house.web.get("/spoken")
        @cached(ttl=60)
        async def spoken(of: str, accept_language: Annotated[str, Header()] = "en") -> str:
            return accept_language

        answer = await http.get("/spoken", params={"of": house.prefix})
        assert answer.headers["vary"] == f"{credentials()}, accept-language"

    async def test_what_the_route_is_included_with_counts(self, http: httpx.AsyncClient, house: House) -> None:
        async def guard(
            key: Annotated[str | None, Depends(APIKeyHeader(name="X-Key", auto_error=False))],
            zone: Annotated[str, Header()],
        ) -> None:
            """Proves no caller."""

        router = APIRouter()

        @router.get("/guarded")
        @cached(ttl=60)
        async def guarded(of: str) -> str:
            return of

        house.web.include_router(router, dependencies=[Depends(guard)])
        for sent, whose in (({}, "public"), ({"X-Key": "one"}, "private")):
            answer = await http.get("/guarded", params={"of": house.prefix}, headers={"Zone": "a", **sent})
            assert answer.headers["cache-control"].startswith(f"{whose}, max-age=")
            assert answer.headers["vary"] == f"{credentials()}, X-Key, zone"

    async def test_is_private_where_a_dependency_sets_a_cookie(self, http: httpx.AsyncClient, house: House) -> None:
        async def session(response: Response) -> None:
            response.set_cookie("session", "secret")

        @house.web.get("/session", dependencies=[Depends(session)])
        @cached(ttl=60)
        async def read(of: str) -> int:
            return 1

        for _ in range(2):
            answer = await http.get("/session", params={"of": house.prefix})
            http.cookies.clear()
            assert answer.headers["cache-control"].startswith("private, max-age=")
            assert "set-cookie" in answer.headers

    async def test_without_an_end_it_is_asked_for_each_time(self, http: httpx.AsyncClient, house: House) -> None:
        @house.web.get("/forever")
        @cached(ttl=None)
        async def forever(of: str) -> int:
            return 1

        answer = await http.get("/forever", params={"of": house.prefix})
        assert answer.headers["cache-control"] == "public, no-cache"
        assert "etag" in answer.headers

    async def test_what_the_operation_says_itself_wins_and_is_said_on_a_hit_too(
        self, http: httpx.AsyncClient, house: House
    ) -> None:
        async def before(response: Response) -> None:
            response.headers.update({"Cache-Control": "private", "X-Before": "1"})
            response.headers.append("Link", "</0>; rel=up")

        @house.web.get("/own", dependencies=[Depends(before)])
        @cached(ttl=60)
        async def own(of: str, response: Response) -> int:
            house.calls.append(of)
            response.headers.update({"Cache-Control": "public, max-age=5", "ETag": '"v1"', "Vary": "X-Zone"})
            response.headers.append("Link", "</a>; rel=next")
            response.headers.append("Link", "</b>; rel=prev")
            return 1

        answers = [await http.get("/own", params={"of": house.prefix}) for _ in range(2)]
        for answer in answers:
            assert answer.headers["cache-control"] == "public, max-age=5"
            assert answer.headers["etag"] == '"v1"'
            assert answer.headers["vary"] == f"X-Zone, {credentials()}"
            assert answer.headers["link"] == "</0>; rel=up, </a>; rel=next, </b>; rel=prev"
            assert answer.headers["x-before"] == "1"
        assert answers[0].headers == answers[1].headers
        assert len(house.calls) == 1


class TestValidators:
    async def test_the_same_answer_has_the_same_tag_and_another_has_another(self, http: httpx.AsyncClient) -> None:
        first, again, other = [(await http.get(f"/seats/{number}")).headers["etag"] for number in (1, 1, 2)]
        assert first == again != other
        assert re.fullmatch(r'W/"[0-9a-f]{32}"', first)

    @pytest.mark.parametrize(
        ("header", "status"),
        [
            ("{etag}", 304),
            ("{strong}", 304),
            ('"a", {etag} , W/"b"', 304),
            ('"a,b",{strong}', 304),
            ("*", 304),
            (" * ", 304),
            ('"other"', 200),
            ('W/"other", "x"', 200),
            ("", 200),
            ("{opaque}", 200),
            ('"*"', 200),
            ('"', 200),
            ("\xff", 200),
        ],
    )
    async def test_who_has_the_answer_is_told_so(
        self, http: httpx.AsyncClient, house: House, header: str, status: int
    ) -> None:
        full = await http.get("/seats/1")
        etag = full.headers["etag"]
        sent = header.format(etag=etag, strong=etag.removeprefix("W/"), opaque=etag[3:-1])
        answer = await http.get("/seats/1", headers=[(b"if-none-match", sent.encode("latin-1"))])
        assert answer.status_code == status
        if status == 304:
            assert answer.content == b""
            assert "content-type" not in answer.headers
            assert answer.headers["etag"] == etag
            assert answer.headers["cache-control"].startswith("public, max-age=")
            assert answer.headers["vary"] == f"{credentials()}, Accept-Encoding"
        assert house.calls == [1]

    async def test_several_header_lines_are_one_list(self, http: httpx.AsyncClient) -> None:
        etag = (await http.get("/seats/1")).headers["etag"]
        answer = await http.get("/seats/1", headers=[("If-None-Match", '"a"'), ("If-None-Match", etag)])
        assert answer.status_code == 304

    async def test_on_a_miss_too(self, http: httpx.AsyncClient, house: House, cache: CacheServiceInterface) -> None:
        etag = (await http.get("/seats/1")).headers["etag"]
        await cache.invalidate(f"{house.prefix}:1")
        assert (await http.get("/seats/1", headers={"If-None-Match": etag})).status_code == 304
        assert house.calls == [1, 1]

    async def test_head_is_answered_alike(self, http: httpx.AsyncClient, house: House) -> None:
        @house.web.api_route("/both", methods=["GET", "HEAD"])
        @cached(ttl=60)
        async def both(of: str) -> int:
            house.calls.append(of)
            return 1

        get, head = [await http.request(method, "/both", params={"of": house.prefix}) for method in ("GET", "HEAD")]
        assert get.headers["etag"] == head.headers["etag"]
        unchanged = await http.head("/both", params={"of": house.prefix}, headers={"If-None-Match": "*"})
        assert unchanged.status_code == 304
        assert len(house.calls) == 1

    async def test_compressed_or_not_it_is_weakly_the_same(self, http: httpx.AsyncClient, house: House) -> None:
        house.web.add_middleware(GZipMiddleware, minimum_size=1024)
        plain, packed = [
            await http.get("/seats/2000", headers={"Accept-Encoding": encoding}) for encoding in ("identity", "gzip")
        ]
        assert (plain.headers.get("content-encoding"), packed.headers["content-encoding"]) == (None, "gzip")
        assert plain.headers["etag"] == packed.headers["etag"]
        assert plain.headers["vary"] == packed.headers["vary"] == f"{credentials()}, Accept-Encoding"

    def test_the_documentation_names_the_304(self) -> None:
        web = DocumentedAPI()

        @web.get("/a")
        @cached(ttl=60)
        async def a() -> int:
            return 1

        @web.get("/b")
        async def b() -> int:
            return 1

        paths = web.openapi()["paths"]
        assert ["304" in paths[path]["get"]["responses"] for path in ("/a", "/b")] == [True, False]
        assert "parameters" not in paths["/a"]["get"]


class TestNotKept:
    async def check(self, http: httpx.AsyncClient, house: House, path: str, status: int, method: str = "GET") -> None:
        answers = [await http.request(method, path, params={"of": house.prefix}) for _ in range(2)]
        for answer in answers:
            assert answer.status_code == status
            assert "etag" not in answer.headers
            assert "cache-control" not in answer.headers or "no-store" in answer.headers["cache-control"].lower()
        assert len(house.calls) == 2

    async def test_a_response_is_given_as_it_is(self, http: httpx.AsyncClient, house: House) -> None:
        @house.web.get("/a")
        @cached(ttl=60)
        async def a(of: str) -> Any:
            house.calls.append(of)
            return Response("text", status_code=202)

        await self.check(http, house, "/a", 202)

    @pytest.mark.parametrize(
        ("change", "status"),
        [
            (lambda response: setattr(response, "status_code", 404), 404),
            (lambda response: response.set_cookie("a", "b"), 200),
            (lambda response: response.headers.update({"Cache-Control": "private, No-Store"}), 200),
        ],
        ids=["status", "cookie", "no-store"],
    )
    async def test_an_answer_that_is_not_for_everybody_to_repeat(
        self, http: httpx.AsyncClient, house: House, change: Callable[[Response], None], status: int
    ) -> None:
        @house.web.get("/a")
        @cached(ttl=60)
        async def a(of: str, response: Response) -> Seat:
            house.calls.append(of)
            change(response)
            return Seat(number=1)

        await self.check(http, house, "/a", status)

    async def test_an_error(self, http: httpx.AsyncClient, house: House) -> None:
        @house.web.get("/a")
        @cached(ttl=60)
        async def a(of: str) -> int:
            house.calls.append(of)
            raise HTTPException(404)

        await self.check(http, house, "/a", 404)

    async def test_another_method(self, http: httpx.AsyncClient, house: House) -> None:
        @house.web.post("/a")
        @cached(ttl=60)
        async def a(of: str) -> int:
            house.calls.append(of)
            return 1

        await self.check(http, house, "/a", 200, "POST")

    async def test_a_cached_dependency_says_nothing_about_the_answer(
        self, http: httpx.AsyncClient, house: House
    ) -> None:
        @cached(ttl=60)
        async def plan(of: str) -> str:
            return "free"

        @house.web.get("/a")
        async def a(plan: Annotated[str, Depends(plan)], of: str) -> str:
            house.calls.append(of)
            return plan

        await self.check(http, house, "/a", 200)


class Stubborn(MemoryStore):
    """A store in which another version of the code keeps its results."""

    async def read(self, key: str, tags: Collection[str]) -> Found:
        return Found(b'{}\n{"number": 9}', {})


@dataclass
class Bank:
    """A service of which one field is a value that looks like every other of its kind, and one is no value."""

    password: SecretStr
    client: object


async def bank() -> Bank:
    return Bank(SecretStr("hidden"), object())


class Prices:
    """A service of a module, which is no value."""

    def __init__(self, tenant: str = "") -> None:
        self.tenant = tenant


async def prices(db: DBSession, cache: CacheService) -> Prices:
    return Prices()


async def prices_of_all(prices: Annotated[Prices, Depends(prices)]) -> Prices:
    return prices


async def tenant(request: Request) -> str:
    return request.headers.get("x-tenant", "")


async def prices_of_tenant(tenant: Annotated[str, Depends(tenant)]) -> Prices:
    return Prices(tenant)


class TestServices:
    async def test_one_that_no_request_reaches_is_no_part_of_the_key(
        self, http: httpx.AsyncClient, house: House, committed: Database
    ) -> None:
        @house.web.get("/price/{number}")
        @cached(ttl=60, prefix=house.prefix)
        async def price(number: int, service: Annotated[Prices, Depends(prices_of_all)]) -> int:
            house.calls.append(number)
            return number

        assert [(await http.get(f"/price/{number}")).json() for number in (1, 2, 1)] == [1, 2, 1]
        assert house.calls == [1, 2]

    async def test_nor_is_one_that_is_made_of_a_secret(self, http: httpx.AsyncClient, house: House) -> None:
        @house.web.get("/rate/{number}")
        @cached(ttl=60, prefix=house.prefix)
        async def rate(number: int, service: Annotated[Bank, Depends(bank)]) -> int:
            house.calls.append(number)
            return number

        assert [(await http.get(f"/rate/{number}")).json() for number in (1, 2, 1)] == [1, 2, 1]
        assert house.calls == [1, 2]

    async def test_a_value_counts_whoever_makes_it(self, http: httpx.AsyncClient, house: House) -> None:
        discount = 5

        async def today() -> int:
            return discount

        @house.web.get("/discount")
        @cached(ttl=60, prefix=house.prefix)
        async def read(of_today: Annotated[int, Depends(today)]) -> int:
            return of_today

        assert (await http.get("/discount")).json() == 5
        discount = 10
        assert (await http.get("/discount")).json() == 10

    async def test_one_that_is_made_of_the_request_needs_a_key_builder(
        self, http: httpx.AsyncClient, house: House
    ) -> None:
        @house.web.get("/tenant")
        @cached(ttl=60, prefix=house.prefix)
        async def price(service: Annotated[Prices, Depends(prices_of_tenant)]) -> str:
            return service.tenant

        with pytest.raises(TypeError, match="needs a key_builder"):
            await http.get("/tenant", headers={"X-Tenant": "ann"})


class TestCrowd:
    async def test_fifty_requests_at_once_carry_it_out_once(self, http: httpx.AsyncClient, house: House) -> None:
        go = asyncio.Event()
        house.scene = go.wait
        asking = [asyncio.create_task(http.get("/seats/1")) for _ in range(50)]
        async with asyncio.timeout(60):
            while not house.calls:  # noqa: ASYNC110  what is waited for knows nothing of tests
                await asyncio.sleep(0.005)
        go.set()
        answers = await asyncio.gather(*asking)
        assert {answer.status_code for answer in answers} == {200}
        assert len({(answer.content, answer.headers["etag"]) for answer in answers}) == 1
        assert house.calls == [1]

    async def test_a_tag_of_the_arguments_forgets_one_of_them(
        self, http: httpx.AsyncClient, house: House, cache: CacheServiceInterface
    ) -> None:
        for number in (1, 2):
            await http.get(f"/seats/{number}")
        await cache.invalidate(f"{house.prefix}:1")
        for number in (1, 2):
            await http.get(f"/seats/{number}")
        assert house.calls == [1, 2, 1]


class TestPoison:
    async def test_an_answer_is_taken_as_it_was_kept(
        self, http: httpx.AsyncClient, house: House, cache: CacheServiceInterface
    ) -> None:
        await cache.set(f"{house.prefix}:1", ANSWER)
        answer = await http.get("/seats/1")
        assert (answer.json(), answer.headers["etag"]) == ({"number": 9, "label": ""}, ANSWER["etag"])
        assert house.calls == []

    @pytest.mark.parametrize(
        "stored",
        [
            1,
            {"number": 1},
            ANSWER | {"value": {"number": "one"}},
            ANSWER | {"headers": [["a", "b\r\nSet-Cookie: c"]]},
            ANSWER | {"headers": [["a: b", "c"]]},
            ANSWER | {"etag": '"\r\n"'},
            ANSWER | {"until": float("nan")},
        ],
    )
    async def test_what_is_no_answer_is_made_anew(
        self, http: httpx.AsyncClient, house: House, cache: CacheServiceInterface, stored: object
    ) -> None:
        await cache.set(f"{house.prefix}:1", stored)
        for _ in range(2):
            answer = await http.get("/seats/1")
            assert answer.json() == {"number": 1, "label": ""}
            assert "set-cookie" not in answer.headers
        assert house.calls == [1]

    async def test_an_answer_that_another_version_goes_on_replacing_is_complete(
        self, http: httpx.AsyncClient, house: House, kit: Runtime
    ) -> None:
        before, kit.cache = kit.cache, Cache(Stubborn())
        try:
            answer = await http.get("/seats/1", headers={"Authorization": "ann"})
            unchanged = await http.get("/seats/1", headers={"If-None-Match": answer.headers["etag"]})
        finally:
            kit.cache = before
        assert answer.json() == {"number": 1, "label": ""}
        assert answer.headers["cache-control"].startswith("private, max-age=")
        assert answer.headers["vary"] == credentials()
        assert unchanged.status_code == 304
        assert house.calls == [1, 1]
