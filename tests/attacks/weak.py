"""Weaknesses, planted for the tests of the attacks: routes and a service each of which forgets something."""

import json
import logging
from collections.abc import Sequence
from typing import Annotated, Any

import httpx
from fastapi import Body, Depends, FastAPI, HTTPException, Request, Response, Security
from fastapi.security import OAuth2PasswordBearer
from pydantic import BaseModel, ConfigDict
from starlette.types import ASGIApp, Receive, Scope, Send

PREFIX = "/api/v1/weak"
_scheme = OAuth2PasswordBearer(tokenUrl="/api/v1/auth/login", auto_error=False)
_FRAMING = ("content-length", "content-encoding")
_log = logging.getLogger(__name__)


class Note(BaseModel):
    """A body that takes whatever is sent."""

    model_config = ConfigDict(extra="allow")

    text: str


def weak_routes(app: ASGIApp) -> FastAPI:
    """Routes each of which forgets something. `app` knows who the caller is."""
    weak = FastAPI()
    notes: dict[int, dict[str, Any]] = {}
    settings: dict[str, Any] = {}

    async def caller(authorization: Annotated[str | None, Depends(_scheme)]) -> int:
        transport = httpx.ASGITransport(app=app, client=("192.0.2.9", 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            answer = await http.get("/api/v1/profile", headers={"Authorization": f"Bearer {authorization}"})
        if answer.status_code != 200:
            raise HTTPException(answer.status_code)
        return int(answer.json()["data"]["id"])

    Caller = Annotated[int, Depends(caller)]  # noqa: N806  a type

    @weak.post(f"{PREFIX}/notes", status_code=201)
    async def make(note: Note, user: Caller) -> dict[str, Any]:
        number = len(notes) + 1
        notes[number] = {"id": number, "owner_id": user, "text": note.text}
        return {"data": notes[number]}

    @weak.get(f"{PREFIX}/notes")
    async def mine(user: Caller) -> dict[str, Any]:
        return {"data": [note for note in notes.values() if note["owner_id"] == user]}

    @weak.get(f"{PREFIX}/notes/{{note_id}}")
    async def anybodys(note_id: int, _user: Caller) -> dict[str, Any]:
        if note_id not in notes:
            raise HTTPException(404)
        return {"data": notes[note_id]}

    @weak.get(f"{PREFIX}/reports", dependencies=[Security(_scheme, scopes=["reports:read"])])
    async def unchecked(_user: Caller) -> dict[str, Any]:
        return {"data": []}

    @weak.get(f"{PREFIX}/open", dependencies=[Depends(_scheme)])
    async def nobody() -> dict[str, Any]:
        return {"data": {}}

    @weak.patch(f"{PREFIX}/settings")
    async def assign(note: Note, _user: Caller) -> dict[str, Any]:
        settings.update(note.model_dump())
        return {"data": settings}

    @weak.post(f"{PREFIX}/redeem", status_code=204)
    async def redeem(token: Annotated[str, Body(embed=True)]) -> None:
        return None

    @weak.get(f"{PREFIX}/download")
    async def reflect(name: str, request: Request, response: Response) -> dict[str, Any]:
        response.raw_headers.append((b"content-disposition", f"attachment; filename={name}".encode()))
        return {"data": str(request.url_for("reflect"))}

    @weak.post(f"{PREFIX}/unlock")
    async def tell(password: Annotated[str, Body(embed=True)]) -> dict[str, Any]:
        _log.warning("cannot unlock with %s", password)
        raise HTTPException(400, f"{password} is wrong")

    @weak.post(f"{PREFIX}/parse")
    async def parse(request: Request, note: Annotated[Any, Body()] = None) -> dict[str, Any]:
        return {"data": str(json.loads(await request.body()))}

    return weak


class WeakService:
    """The service with weak routes, and with flows that forget."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.weak = weak_routes(app)
        self.known: set[str] = set()
        self.profiles: dict[str, httpx.Response] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"].startswith(PREFIX):
            await self.weak(scope, receive, send)
            return
        request = Request(scope, receive)
        body = await request.body()
        for name, value in scope["headers"]:
            if name == b"x-forwarded-for":
                scope = {**scope, "client": (value.decode(), 1)}  # believed from anybody
        answer = await self._answered(scope, body)
        await self._changed(scope["path"], scope["method"], body, answer)(scope, receive, send)

    async def _answered(self, scope: Scope, body: bytes) -> httpx.Response:
        client = scope.get("client") or ("192.0.2.9", 1)
        transport = httpx.ASGITransport(app=self.app, raise_app_exceptions=False, client=tuple(client))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            path = scope["path"] + (f"?{scope['query_string'].decode('latin-1')}" if scope["query_string"] else "")
            return await http.request(scope["method"], path, headers=scope["headers"], content=body)

    def _changed(self, path: str, method: str, body: bytes, answer: httpx.Response) -> Response:
        status, content, headers = answer.status_code, answer.content, dict(answer.headers)
        if path.endswith("/users") and method == "POST":
            self.known.add(json.loads(body)["email"])
            if "\u200b" in json.loads(body)["username"]:  # what cannot be seen is no other name
                status, content = 201, json.dumps({"data": {"id": 0, **json.loads(body)}}).encode()
        if path.endswith("/auth/login") and any(one in body.decode().replace("%40", "@") for one in self.known):
            headers["x-account"] = "known"
        if path.endswith("/auth/reset-password") and status in (400, 401, 422):
            status, content = 204, b""
        if path.endswith("/auth/login") and status == 429:
            status, content = 401, b"{}"  # no limit, only other words
        if path.endswith("/roles/admin") and method == "PUT":
            status, content = 204, b""
        if path.endswith("/profile") and method == "GET":
            # A credential that was in force once is in force for ever.
            given = answer.request.headers
            kept = self.profiles.setdefault(f"{given.get('authorization')} {given.get('x-api-key')}", answer)
            if kept.is_success:
                status, content = kept.status_code, kept.content
        return Response(content, status, {name: value for name, value in headers.items() if name not in _FRAMING})


def weak_document(app: FastAPI, weak: FastAPI, words: Sequence[str]) -> dict[str, Any]:
    """The weak routes that have one of these words, those of ours, and login: the rest need not be attacked again."""
    document, own = dict(weak.openapi()), app.openapi()
    paths = {path: item for path, item in document["paths"].items() if any(word in path for word in words)}
    ours = {path: item for path, item in own["paths"].items() if path.endswith(("/auth/login", *words))}
    return document | {"paths": {**paths, **ours}, "components": {**own["components"], **_merged(document, own)}}


def _merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    schemas = [part["components"].get("schemas", {}) for part in (one, other)]
    return {"schemas": schemas[0] | schemas[1]}
