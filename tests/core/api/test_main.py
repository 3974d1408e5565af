"""The application factory."""

import logging
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, WebSocket

from app.core.configs import AppConfig, get_settings
from app.core.services.log import request_id
from app.main import KIT_RUN, create_app, warn_of_other_servers
from tests.core.api.conftest import Serve, make_app
from tests.core.log.capture import captured_log


class TestSettings:
    async def test_those_given_are_those_requests_see(self, serve: Serve) -> None:
        router = APIRouter()

        @router.get("/t/name")
        async def name(settings: Annotated[AppConfig, Depends(get_settings)]) -> str:
            return settings.PROJECT_NAME

        assert (await (await serve(router, PROJECT_NAME="Mine")).get("/t/name")).json() == "Mine"
        assert (await (await serve(router)).get("/t/name")).json() == get_settings().PROJECT_NAME

    async def test_the_prefix_of_the_api_is_one(self, serve: Serve, db: Any) -> None:
        http = await serve(API_V1_STR="/v9")
        assert (await http.get("/v9/profile")).status_code == 401
        assert (await http.get("/api/v1/profile")).status_code == 404

    def test_unknown_keys_of_the_settings_file_are_reported(
        self, app: FastAPI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / ".env"
        path.write_text("ENVIRONMENT=testing\nLOG_LEVLE=DEBUG\n")
        monkeypatch.setenv("ENV_FILE", str(path))
        with captured_log():  # puts the usual log back
            create_app()
        assert "unknown setting 'LOG_LEVLE'; did you mean LOG_LEVEL?" in capsys.readouterr().out


class TestServer:
    @pytest.mark.parametrize(
        ("environment", "served_by", "warns"),
        [("production", None, True), ("staging", None, True), ("production", "1", False), ("local", None, False)],
    )
    def test_another_than_kit_run_is_named(
        self, app: FastAPI, monkeypatch: pytest.MonkeyPatch, environment: str, served_by: str | None, warns: bool
    ) -> None:
        monkeypatch.delenv(KIT_RUN, raising=False)
        if served_by:
            monkeypatch.setenv(KIT_RUN, served_by)
        with captured_log() as lines:
            warn_of_other_servers(AppConfig(ENVIRONMENT=environment))
        assert ("not served by `kit run`" in lines.text) is warns


class TestLogging:
    def test_a_handler_of_an_earlier_set_up_is_replaced(self, app: FastAPI) -> None:
        logging.getLogger().addHandler(stray := logging.StreamHandler())
        make_app()
        assert stray not in logging.getLogger().handlers


class TestWebSockets:
    async def test_pass_every_layer_and_have_ids(self, app: FastAPI) -> None:
        router = APIRouter()

        @router.websocket("/ws")
        async def socket(socket: WebSocket) -> None:
            await socket.accept()
            await socket.send_text(str(request_id()))
            await socket.close()

        application = make_app(router)
        scope = {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "path": "/ws",
            "query_string": b"",
            "headers": [(b"host", b"test"), (b"x-request-id", b"mine")],
            "client": ("192.0.2.1", 1),
            "server": ("test", 80),
            "scheme": "ws",
            "root_path": "",
            "subprotocols": [],
        }
        sent: list[Any] = []

        async def receive() -> dict[str, str]:
            return {"type": "websocket.connect"}

        async def send(message: Any) -> None:
            sent.append(message)

        with captured_log() as lines:
            await application(scope, receive, send)
        assert [message["type"] for message in sent] == ["websocket.accept", "websocket.send", "websocket.close"]
        assert sent[1]["text"] == "mine"
        assert lines.all("request") == []
