"""Where a keyset page begins, and the sealed text that says so to the client."""

import base64
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

_PURPOSE = b"list cursor 1\0"
_SEAL_BYTES = 16

# What JSON has no type for: how it is written and read. A datetime is a date, so it comes first.
_KINDS: dict[str, tuple[type[Any], Callable[[Any], str], Callable[[str], Any]]] = {
    "decimal": (Decimal, str, Decimal),
    "datetime": (datetime, datetime.isoformat, datetime.fromisoformat),
    "date": (date, date.isoformat, date.fromisoformat),
    "uuid": (UUID, str, UUID),
}


@dataclass(frozen=True)
class Position:
    """A place in a sorted list: next to the row with this sort value and id, whether that row still exists or not.

    `key` is None where the list is sorted by `id` alone; `inclusive` counts the row itself in.
    """

    key: Any
    id: int
    backwards: bool = False
    inclusive: bool = False


@dataclass(frozen=True)
class CursorSeal:
    """Writes positions as text and reads them back, for one `scope`: which list, sort and filters they belong to.

    The text is signed, not secret: it can be read, and not made, by its bearer.
    """

    key: bytes = field(repr=False)
    scope: str

    def write(self, position: Position) -> str:
        """`position` as a cursor."""
        place = [_pack(position.key), position.id, int(position.backwards), int(position.inclusive)]
        text = json.dumps(place, separators=(",", ":"), ensure_ascii=False).encode()
        return _encode(self._seal(text) + text)

    def read(self, cursor: str) -> Position:
        """The position of a cursor that `write` gave; anything else is a ValueError."""
        sealed = base64.urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
        seal, text = sealed[:_SEAL_BYTES], sealed[_SEAL_BYTES:]
        # base64 ignores characters that are not of its alphabet: only the one spelling of a position counts.
        if _encode(sealed) != cursor or not hmac.compare_digest(seal, self._seal(text)):
            raise ValueError("not a cursor of this list")
        key, row_id, backwards, inclusive = json.loads(text)
        return Position(_unpack(key), row_id, bool(backwards), bool(inclusive))

    def _seal(self, text: bytes) -> bytes:
        scope = self.scope.encode()
        message = b"%s%d:%s%s" % (_PURPOSE, len(scope), scope, text)
        return hmac.digest(self.key, message, "sha256")[:_SEAL_BYTES]


@dataclass(frozen=True)
class Cursor:
    """A request for a keyset page: the first one, or the one at the place that `text` stands for.

    `seal` reads it and writes those of the pages around, once the column that the list is sorted by is part of it.
    """

    seal: CursorSeal
    text: str = ""


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _pack(value: Any) -> Any:
    for name, (kind, write, _) in _KINDS.items():
        if isinstance(value, kind):
            return {name: write(value)}
    return value


def _unpack(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    ((name, text),) = value.items()
    return _KINDS[name][2](text)
