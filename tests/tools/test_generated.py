"""The generators in a clone: what they write is sound. That it passes every check is proven by tests/e2e."""

import json
from pathlib import Path

import pytest

from tests.clone import Clone

pytestmark = pytest.mark.needs("git")


def test_a_module_with_a_model_is_sound(tmp_path: Path) -> None:
    clone = Clone(tmp_path)
    clone.made("module", "new", "gift_cards")
    clone.made("model", "new", "gift_cards", "GiftCard", "code:str(12):unique", "value:decimal", "note:text:nullable")
    clone.run(".venv/bin/ruff", "check", ".")
    clone.run(".venv/bin/ruff", "format", "--check", ".")
    assert clone.made("module", "validate") == "Every boundary holds.\n"
    paths = json.loads((clone.folder / "docs" / "openapi.json").read_text())["paths"]
    assert {"/api/v1/gift-cards", "/api/v1/gift-cards/{gift_card_id}"} <= paths.keys()
    assert "## gift_cards" in (clone.folder / "docs" / "module-map.md").read_text()

    clone.made("module", "remove", "gift_cards")
    assert clone.changes() == []
