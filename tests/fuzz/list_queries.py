"""Hostile list queries, made from a seed: the grammar of `sort` and `filters`, bent in every way we know."""

import random
import string
from collections.abc import Callable
from urllib.parse import quote

FIELDS = ("id", "email", "username", "status_id", "is_verified", "created_at", "updated_at")
_HIDDEN = ("password_hash", "is_superuser", "deleted_at", "metadata", "__class__", "id.desc", "", "ID", "id ")
_LOOKUPS = ("", "__ne", "__lt", "__lte", "__gt", "__gte", "__ilike", "__null", "__in", "____", "__ne__ne", "__")
_VALUES = (
    *(
        "1",
        "0",
        "-1",
        "-0",
        "01",
        "+1",
        "1_000",
        "1.0",
        "1e3",
        "0x1",
        "٣",
        "NaN",
        "inf",
        "None",
        "null",
        "true",
        "false",
    ),
    *("[]", "[1,2]", "[1,[2]]", "[[[[1]]]]", "[1", "1]", "[,]", "[1,]", "[None]", "{}", "{'a': 1}", "()", "(1,)"),
    *("%", "_", "%25", "\\", "\\\\", "\\%", "a\\", "'", '"', "';--", "' OR 1=1--", "${x}", "{{7*7}}", "<b>", "\r\n"),
    *("\x00", "a\x00b", "\ud800", "\udfff\ud800", "\ufeff", "\u202e", "İ", "ß", "🦄", "e\u0301", "\x7f", "\x1b[31m"),
    *("2026-01-31T12:00:00Z", "2026-01-31", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2026-02-30"),
    *(str(2**15), str(2**31), str(2**63 - 1), str(2**63), str(-(2**63) - 1), str(2**64), "9" * 400),
)
_NUMBERS = (
    "0",
    "-1",
    "1",
    "2",
    "50",
    "100",
    "101",
    "1000000",
    "1000001",
    str(2**63),
    "9" * 5000,
    "1.5",
    "",
    " 1",
    "1e9",
)


class ListQueries:
    """`next()` gives the raw query string of one more query; the same seed gives the same ones."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._kinds: tuple[tuple[int, Callable[[], list[tuple[str, str]]]], ...] = (
            (60, self._plausible),
            (20, self._sorts),
            (20, self._cursors),
            (15, self._noise),
            (10, self._repeated),
            (3, self._huge),
        )

    def next(self) -> bytes:
        """One raw query string."""
        weights, kinds = zip(*self._kinds, strict=True)
        (kind,) = self._random.choices(kinds, weights)
        pairs = kind()
        return b"&".join(self._encode(name) + b"=" + self._encode(value) for name, value in pairs)

    def _plausible(self) -> list[tuple[str, str]]:
        """A query whose every part may be right or wrong."""
        chosen = self._random
        pairs = []
        if chosen.random() < 0.8:
            pairs.append(("filters", ",".join(self._filter() for _ in range(chosen.choice((1, 1, 1, 2, 3, 11))))))
        if chosen.random() < 0.4:
            pairs.append(("sort", ",".join(self._sort() for _ in range(chosen.choice((1, 1, 2, 5, 6))))))
        for name in ("page", "per_page"):
            if chosen.random() < 0.2:
                pairs.append((name, chosen.choice(_NUMBERS)))
        return pairs

    def _filter(self) -> str:
        field = self._random.choice(FIELDS if self._random.random() < 0.9 else _HIDDEN)
        colon = ":" if self._random.random() < 0.95 else self._random.choice(("", "::", "=", " : "))
        return f"{field}{self._random.choice(_LOOKUPS)}{colon}{self._value()}"

    def _value(self) -> str:
        if self._random.random() < 0.2:
            return "[" + ",".join(self._random.choices(_VALUES, k=self._random.choice((1, 2, 5, 101)))) + "]"
        return self._random.choice(_VALUES)

    def _sort(self) -> str:
        field = self._random.choice(FIELDS if self._random.random() < 0.9 else _HIDDEN)
        return field + self._random.choice(("", ":asc", ":desc", ":DESC", ":", ":asc:desc", ":asc nulls last", ":\x00"))

    def _sorts(self) -> list[tuple[str, str]]:
        return [("sort", ",".join(self._sort() for _ in range(self._random.choice((1, 2, 5)))))]

    def _cursors(self) -> list[tuple[str, str]]:
        made = "".join(
            self._random.choices(string.ascii_letters + string.digits + "-_.=", k=self._random.choice((0, 8, 90)))
        )
        pairs = [("cursor", self._random.choice(("", "", made, made, self._value())))]
        if self._random.random() < 0.7:
            pairs.append(("sort", self._sort()))
        if self._random.random() < 0.3:
            pairs.append((self._random.choice(("page", "per_page")), self._random.choice(_NUMBERS)))
        if self._random.random() < 0.3:
            pairs.append(("filters", self._filter()))
        return pairs

    def _noise(self) -> list[tuple[str, str]]:
        """Text without sense, mostly of the characters the grammar means something by."""
        alphabet = "[]:,\\%_ \t\n.-+0123456789idnull\x00\ud800'\"{}()&=;#"
        text = "".join(self._random.choices(alphabet, k=self._random.randrange(1, 200)))
        return [(self._random.choice(("sort", "filters", "page", "per_page", "cursor", text)), text)]

    def _repeated(self) -> list[tuple[str, str]]:
        name = self._random.choice(("sort", "filters", "page", "per_page", "cursor"))
        values = [
            self._random.choice(("id", "id:1", "1", "2", self._value()))
            for _ in range(self._random.choice((2, 3, 500)))
        ]
        return [(name, value) for value in values]

    def _huge(self) -> list[tuple[str, str]]:
        """What is too much, for a parser that is not linear above all."""
        return self._random.choice(
            (
                [("filters", "id:" + "[" * 20_000)],
                [("filters", "id:" + "[" * 10_000 + "]" * 10_000)],
                [("filters", "id:[" + "1," * 20_000 + "1]")],
                [("filters", "username:" + "\\" * 20_001)],
                [("filters", "username:[" + "\\," * 10_000 + "]")],
                [("filters", "username__ilike:" + "%_" * 10_000)],
                [("filters", "username:" + "a" * 60_000)],
                [("filters", ",".join(["id:1"] * 2_000))],
                [("filters", ":" * 20_000)],
                [("sort", ",".join(["id"] * 2_000))],
                [("sort", ",".join(f"{name}:desc" for name in FIELDS) * 300)],
                [("sort", "," * 20_000)],
                [("page", "1" * 20_000)],
                [("cursor", "A" * 20_000)],
                [(f"p{number}", "1") for number in range(2_000)],
            )
        )

    def _encode(self, text: str) -> bytes:
        """Percent-encoded in one of the ways that mean the same, or in one that is broken."""
        plain = quote(text.encode(errors="surrogatepass"), safe=":,[]").encode()
        draw = self._random.random()
        if draw < 0.80:
            return plain
        if draw < 0.85:
            return quote(plain).encode()  # twice
        if draw < 0.90:
            return "".join(f"%{byte:02x}" for byte in text.encode(errors="surrogatepass")).encode()
        broken = self._random.choice(
            (b"%", b"%f", b"%zz", b"%u0000", b"%ff%fe", b"%c0%af", b"%ed%a0%80", b"%00", b"+", b"\xff")
        )
        position = self._random.randrange(len(plain) + 1)
        return plain[:position] + broken + plain[position:]
