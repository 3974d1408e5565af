"""What must not reach a log."""

from typing import Any

import pytest
from pydantic import BaseModel, SecretStr, ValidationError

from app.core.services.log.redaction import REDACTED, clean, clean_text, clean_traceback

SECRET = "hunter2-s3cr3t"


class TestKeys:
    @pytest.mark.parametrize(
        "key",
        [
            "password",
            "new_password",
            "PASSWORD",
            "token",
            "refreshToken",
            "client_secret",
            "authorization",
            "Authorization",
            "cookie",
            "set-cookie",
            "api_key",
            "X-API-Key",
            "apikey",
            "private_key",
            "jwt",
            "credentials",
        ],
    )
    def test_values_of_secrets_are_hidden(self, key: str) -> None:
        assert clean({key: SECRET}) == {key: REDACTED}

    @pytest.mark.parametrize("value", [["a", SECRET], {"deep": SECRET}, 123456, SecretStr(SECRET), SECRET.encode()])
    def test_whatever_their_type(self, value: Any) -> None:
        assert clean({"token": value}) == {"token": REDACTED}

    @pytest.mark.parametrize("value", [None, True])
    def test_absence_is_no_secret(self, value: bool | None) -> None:
        assert clean({"password": value}) == {"password": value}

    def test_at_any_depth(self) -> None:
        given = {"user": {"name": "ann", "logins": [{"password": SECRET}, ({"api_key": SECRET},)]}}
        assert clean(given) == {
            "user": {"name": "ann", "logins": [{"password": REDACTED}, [{"api_key": REDACTED}]]},
        }

    def test_deeper_than_any_sane_value(self) -> None:
        nested: dict[str, Any] = {"password": SECRET}
        for _ in range(50):
            nested = {"inner": nested}
        assert SECRET not in str(clean(nested))


class TestTexts:
    @pytest.mark.parametrize(
        "text",
        [
            f"GET /reset?token={SECRET}&x=1",
            f"https://app.test/#token={SECRET}",
            f"postgresql://user:{SECRET}@db/app",
            f"redis://:{SECRET}@cache/0",
            f"postgresql://user:{SECRET}@more@db/app",
            f"Authorization: Bearer {SECRET}",
            f"Authorization: Basic {SECRET}",
            f"sent bearer {SECRET} along",
            f"Cookie: theme=dark; session={SECRET}",
            f"User(name='ann', password='{SECRET} with spaces')",
            f'{{"api_key": "{SECRET}"}}',
            f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.{SECRET}",
        ],
    )
    def test_secrets_inside_a_text_are_hidden(self, text: str) -> None:
        cleaned = clean_text(text)
        assert "hunter2" not in cleaned
        assert REDACTED in cleaned

    def test_the_rest_of_the_text_stays(self) -> None:
        assert clean_text("postgresql://user:pw@db/app?x=1") == f"postgresql://user:{REDACTED}@db/app?x=1"
        assert clean_text("GET /users?page=2&sort=id:desc") == "GET /users?page=2&sort=id:desc"

    def test_long_hostile_texts_cost_little(self) -> None:
        # a quadratic pattern would take minutes
        for text in ("a" * 300_000 + "=", "://" * 100_000, "password" * 40_000 + "=", "bearer " * 40_000):
            clean_text(text)


class TestControlCharacters:
    @pytest.mark.parametrize(
        "character", ["\n", "\r", "\x1b", "\x00", "\x7f", "\x9b", "\u2028", "\u202e", "\u200f", "\ud800"]
    )
    def test_neither_lines_nor_terminals_can_be_driven(self, character: str) -> None:
        cleaned = clean_text(f"a{character}[31mb")
        assert cleaned.isprintable()
        assert cleaned.startswith("a\\")

    def test_in_keys_too(self) -> None:
        assert clean({"a\nb": 1}) == {"a\\nb": 1}

    def test_other_languages_stay(self) -> None:
        assert clean_text("Zoë 日本 🎉") == "Zoë 日本 🎉"


class TestValues:
    def test_everything_becomes_something_json_knows(self) -> None:
        given = {"big": 2**70, "nan": float("nan"), "set": {1}, "object": SecretStr("x"), 7: "seven"}
        assert clean({"v": given}) == {
            "v": {"big": str(2**70), "nan": "nan", "set": [1], "object": "**********", "7": "seven"}
        }


class TestTracebacks:
    def test_no_message_passes_for_a_line_of_its_own(self) -> None:
        cleaned = clean_traceback("ValueError: x\n2026-01-01 [info] all is well\r\n\x1b[2J")
        assert all(line.startswith("    ") for line in cleaned.split("\n"))
        assert "\r" not in cleaned
        assert "\x1b" not in cleaned

    def test_pydantic_does_not_quote_the_input(self) -> None:
        class Form(BaseModel):
            age: int

        with pytest.raises(ValidationError) as caught:
            Form.model_validate({"age": SECRET})
        assert "hunter2" in str(caught.value)
        assert "hunter2" not in clean_traceback(str(caught.value))


def test_the_identity_of_a_key_is_no_secret() -> None:
    assert clean({"user": "api_key:3"}) == {"user": "api_key:3"}
    for text in (f"api_key:{SECRET}", "api_key: 3", "api_key=3", "api_key:3abc", "x-api-key:3", "api_key:" + "1" * 20):
        assert "[redacted]" in clean_text(text), text
