"""Hostile request bodies, made from a seed: every route that takes one, JSON and forms bent in every way we know."""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Request:
    """One request: the marker in it must not come back in an error."""

    method: str
    path: str
    content_type: str
    chunks: list[bytes] = field(repr=False)


@dataclass(frozen=True)
class Target:
    """A route and a body it would understand, or refuse for its content alone."""

    method: str
    path: str
    body: dict[str, Any]


MARKER = "zqxjkv"
"""Part of every value that is made up, so that an echo is seen."""

_ACCOUNT = {"email": f"{MARKER}@example.com", "username": MARKER, "password": f"{MARKER} pass phrase"}
TARGETS = (
    Target("POST", "/auth/register", _ACCOUNT),
    Target("POST", "/auth/login", {"username": MARKER, "password": MARKER}),
    Target("POST", "/auth/refresh-token", {"refresh_token": MARKER}),
    Target("POST", "/auth/restore-password", {"email": f"{MARKER}@example.com"}),
    Target("POST", "/auth/reset-password", {"token": MARKER, "new_password": f"{MARKER} pass phrase"}),
    Target("POST", "/auth/verify-email", {"token": MARKER}),
    Target("POST", "/auth/resend-verification", {"email": f"{MARKER}@example.com"}),
    Target("PATCH", "/profile", {"username": MARKER, "email": f"{MARKER}@example.com", "current_password": MARKER}),
    Target("POST", "/profile/password", {"current_password": MARKER, "new_password": f"{MARKER} pass phrase"}),
    Target("DELETE", "/profile", {"current_password": MARKER}),
    Target("POST", "/users", {**_ACCOUNT, "is_verified": True, "is_superuser": False}),
    Target("PATCH", "/users/2", {"username": MARKER, "status_id": 1, "is_verified": True}),
)
_STRINGS = (
    *(
        "",
        " ",
        MARKER,
        f"{MARKER}\x00",
        f"{MARKER}\ud800",
        f"\udfff{MARKER}",
        f"{MARKER}@",
        f"@{MARKER}",
        f"{MARKER}\r\nBcc: x",
    ),
    *(
        f"{MARKER}\u202e",
        f"{MARKER}\u0130@example.com",
        f"{MARKER}@exa\u0000mple.com",
        f"{MARKER}@[127.0.0.1]",
        "ß" * 40,
    ),
    *(
        f"{MARKER}' OR 1=1--",
        f"{MARKER}{{{{7*7}}}}",
        f"<script>{MARKER}</script>",
        f"{MARKER}" * 5_000,
        "🦄" * 40,
        "None",
    ),
)
_NUMBERS = (0, -1, 1, 2**15, 2**31, 2**63, 2**64, -(2**63) - 1, 10**400, 1.5, 1e308, float("nan"), float("inf"))
_TYPES = (
    *("application/json", "application/json; charset=utf-16", "application/problem+json", "text/json", "JSON", ""),
    *("application/x-www-form-urlencoded", "multipart/form-data", "multipart/form-data; boundary=zq", "text/plain"),
    *("application/xml", "application/octet-stream", "application/json\tx", f"application/{MARKER}", "*/*", ";;;="),
)


class Bodies:
    """`next()` gives one more request; the same seed gives the same ones."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._kinds: tuple[tuple[int, Callable[[Target], bytes]], ...] = (
            (40, self._bent),
            (15, self._form),
            (15, self._broken),
            (10, self._other_json),
            (5, self._duplicate),
            (5, self._bytes),
            (2, self._deep),
        )

    def next(self) -> Request:
        """One request."""
        target = self._random.choice(TARGETS)
        weights, kinds = zip(*self._kinds, strict=True)
        (kind,) = self._random.choices(kinds, weights)
        usual = "application/x-www-form-urlencoded" if kind == self._form else "application/json"
        content_type = usual if self._random.random() < 0.8 else self._random.choice(_TYPES)
        return Request(target.method, target.path, content_type, self._cut(kind(target)))

    def _value(self, depth: int = 0) -> Any:
        draw = self._random.random()
        if draw < 0.5:
            return self._random.choice(_STRINGS)
        if draw < 0.75:
            return self._random.choice(_NUMBERS)
        if draw < 0.9 or depth == 3:
            return self._random.choice((None, True, False, [], {}))
        children = [self._value(depth + 1) for _ in range(self._random.randrange(4))]
        return children if draw < 0.95 else {str(index): child for index, child in enumerate(children)}

    def _bent(self, target: Target) -> bytes:
        """The right body with some members changed, left out or added."""
        body = dict(target.body)
        for name in list(body):
            if self._random.random() < 0.4:
                body[name] = self._value()
            elif self._random.random() < 0.1:
                del body[name]
        if self._random.random() < 0.2:
            body[self._random.choice((*_STRINGS, "id", "is_superuser", "__class__", "constructor"))] = self._value()
        return self._dump(body)

    def _form(self, target: Target) -> bytes:
        pieces = (
            b"%00",
            b"%ff",
            b"%zz",
            b"%ed%a0%80",
            b"&",
            b"=",
            b"+",
            b"%26",
            MARKER.encode(),
            b"\xff",
            b"grant_type=",
        )
        fields = [f"{name}=".encode() + b"".join(self._random.choices(pieces, k=3)) for name in target.body]
        return b"&".join(fields * self._random.choice((1, 1, 2, 600)))

    def _broken(self, target: Target) -> bytes:
        """Right JSON with bytes cut, doubled, changed or put in."""
        body = bytearray(self._dump(target.body))
        for _ in range(self._random.randrange(1, 4)):
            at = self._random.randrange(len(body) + 1)
            piece = self._random.choice(
                (b"\x00", b"\xff", b'"', b"{", b"}", b"\\", b"\\u0000", b"\\ud800", b",", b"//", b"NaN")
            )
            body[at : at + self._random.randrange(3)] = piece
        return bytes(body[: self._random.choice((len(body), len(body), at))])

    def _other_json(self, _target: Target) -> bytes:
        return self._dump(self._value())

    def _duplicate(self, target: Target) -> bytes:
        body = self._dump(target.body)
        return body[:-1] + b", " + body[1:]

    def _bytes(self, _target: Target) -> bytes:
        return self._random.randbytes(self._random.choice((0, 1, 30, 3_000))) + MARKER.encode()

    def _deep(self, target: Target) -> bytes:
        """Too deep or too large."""
        count = self._random.choice((100, 20_000, 400_000))
        name = next(iter(target.body))
        return self._random.choice(
            (
                b"[" * count + b"]" * count,
                b'{"a":' * count + b"1" + b"}" * count,
                b"{" + f'"{name}":'.encode() + b"[" * count + b"]" * count + b"}",
                b"{" + f'"{name}":"'.encode() + b"a" * (count * 4) + b'"}',
                b"{" + f'"{name}":'.encode() + b"9" * count + b"}",
                b"[" + b"1," * count + b"1]",
            )
        )

    def _dump(self, value: Any) -> bytes:
        """As JSON, in ASCII or not; what is no UTF-8 goes out as it is."""
        return json.dumps(value, ensure_ascii=self._random.random() < 0.5).encode(errors="surrogatepass")

    def _cut(self, body: bytes) -> list[bytes]:
        """The body in one piece or in some."""
        if self._random.random() < 0.7 or len(body) < 2:
            return [body]
        at = self._random.randrange(1, len(body))
        return [body[:at], b"", body[at:]]
