"""The text of keys and tokens: what scanners look for, and what is refused without a query."""

import hashlib
import re
import string

import pytest

from app.api_keys import security

SCANNED = re.compile(r"\bkit_(?:at|[0-9A-Za-z]{12})_[0-9A-Za-z]{49}\b")
"""As docs/api-keys.md gives it to scanners."""


class TestText:
    def test_a_scanner_finds_keys_and_tokens_in_any_text(self) -> None:
        for text in (security.new_text(security.new_prefix()), security.new_text()):
            assert SCANNED.findall(f'API_KEY="{text}"; curl -H X-API-Key:{text}') == [text, text]

    def test_the_secret_has_256_bits_and_no_two_are_the_same(self) -> None:
        secrets = {security.new_text().split("_")[2][:43] for _ in range(1000)}
        assert len(secrets) == 1000
        assert 62 ** min(map(len, secrets)) >= 2**256
        assert set().union(*secrets) == set(string.digits + string.ascii_letters)

    def test_every_typing_error_is_found(self) -> None:
        text = security.new_text(security.new_prefix())
        assert security.prefix_of(text)
        for place in range(len(text)):
            for other in {"x", "Y", "0", "_", "é", "\0"} - {text[place]}:
                assert security.prefix_of(text[:place] + other + text[place + 1 :]) is None, place

    @pytest.mark.parametrize(
        "text", ["", "kit_", "kit__", "kit_at_" + "a" * 49, "a" * 100_000, "kit_at_" + "9" * 10**6]
    )
    def test_what_is_none(self, text: str) -> None:
        assert security.prefix_of(text) is None

    def test_a_surrounded_or_shortened_text_is_none(self) -> None:
        text = security.new_text()
        for other in (f" {text}", f"{text} ", f"{text}\n", text[:-1], text + "0", text.upper(), text.lower()):
            assert security.prefix_of(other) is None

    def test_the_stored_hash_is_that_of_the_whole_text(self) -> None:
        text = security.new_text(prefix := security.new_prefix())
        assert security.prefix_of(text) == prefix
        assert security.hash_of(text) == hashlib.sha256(text.encode()).hexdigest()
        assert security.prefix_of(security.new_text()) == "kit_at"
