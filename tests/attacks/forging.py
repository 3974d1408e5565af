"""Forged access tokens: made by hand, so that no library corrects what must be wrong."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

_OTHER_KEY = b"another-key-of-more-than-32-bytes-in-length"
_REMOVED = object()
_WRONG_TYPES: tuple[Any, ...] = (
    _REMOVED,
    None,
    True,
    [],
    {},
    1.5,
    "",
    -1,
    0,
    10**30,
    "9" * 400,
    ["localhost"],
    {"a": 1},
)
_CLAIMS: tuple[dict[str, Any], ...] = (
    {"iss": "evil.example.com"},
    {"aud": "evil.example.com"},
    {"sub": "01"},
    {"sub": " 1"},
    {"sub": "1\n"},
    {"sub": "1 "},
    {"sub": "one"},
    {"sub": "\u0663"},
    {"sub": "9" * 19},
    {"sub": "1 OR 1=1"},
    {"sid": "9" * 18},
    {"sid": "' OR 1=1 --"},
    {"sid": "1\u0000"},
    {"jti": "x" * 65},
    {"exp": "9999999999"},
    {"exp": 9999999999},
    {"exp": 1},
    {"iat": "1"},
    {"iat": 1},
    {"nbf": 9999999999},
    {"crit": ["exp"]},
    {"is_superuser": True},
    {"permissions": ["*"]},
)
_INFORMATION = {"roles", "scope"}
"""Claims for clients, which the service does not read."""
_HEADERS: tuple[dict[str, Any], ...] = (
    *(
        {"alg": name}
        for name in ("none", "None", "NONE", "nOnE", "", "HS384", "HS512", "RS256", "ES256", "EdDSA", "dir")
    ),
    *({"alg": value} for value in (["HS256"], None, True, 1, {}, _REMOVED, "HS256 ", "hs256")),
    *({"typ": value} for value in ("JWT", "at+jwt ", "xat+jwt", None, ["at+jwt"], "rt+jwt", _REMOVED)),
    *({"kid": value} for value in ("00000000", "", None, 1, {"a": 1}, "../../../../dev/null", "/dev/null", _REMOVED)),
    *(
        {"kid": value}
        for value in ("' UNION SELECT 'key' --", "file:///etc/passwd", "http://127.0.0.1:1/k", "a\u0000b")
    ),
    {"jwk": {"kty": "oct", "k": base64.urlsafe_b64encode(_OTHER_KEY).decode()}},
    {"jku": "https://evil.example.com/keys"},
    {"x5u": "https://evil.example.com/cert"},
    {"x5c": ["MIIB"]},
    {"crit": ["exp"]},
    {"crit": ["b64"], "b64": False},
    {"crit": []},
    {"b64": False},
    {"zip": "DEF"},
    {"cty": "JWT"},
    {"enc": "A128GCM"},
    {"ALG": "none"},
)


def segment(value: Any) -> str:
    """A part of a token, of JSON or of bytes as they are."""
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def signed(header: Any, claims: Any, key: bytes, digest: str = "sha256") -> str:
    """A token with an HMAC."""
    text = f"{segment(header)}.{segment(claims)}"
    return f"{text}.{segment(hmac.new(key, text.encode(), digest).digest())}"


def parts(token: str) -> tuple[dict[str, Any], dict[str, Any], str] | None:
    """Header, claims and signature of a token; None if it is no JWT."""
    try:
        head, body, signature = token.split(".")
        return json.loads(_decoded(head)), json.loads(_decoded(body)), signature
    except ValueError:
        return None


def kid_of(secret: str) -> str:
    """The key id that the service gives a secret."""
    return hashlib.sha256(b"kid" + secret.encode()).hexdigest()[:8]


def forged(
    token: str, secret: str = "", public_keys: tuple[bytes, ...] = (), other_id: object = 1
) -> Iterator[tuple[str, str]]:
    """Names and tokens made of a valid one, none of which is valid.

    With the secret of HS256 what is wrong is well signed: then it is the checks behind the signature that are tried.
    `other_id` is the account to become.
    """
    known = parts(token)
    if known is None:
        return
    header, claims, _ = known
    key = secret.encode() or _OTHER_KEY
    how = "well signed" if secret else "signed by another key"
    for change in _HEADERS:
        yield f"header {_told(change)}, {how}", signed(_changed(header, change), claims, key)
    for name in sorted(claims.keys() - _INFORMATION):
        for value in _WRONG_TYPES:
            if claims[name] != value:
                yield f"claim {_told({name: value})}, {how}", signed(header, _changed(claims, {name: value}), key)
    for change in _CLAIMS:
        yield f"claim {_told(change)}, {how}", signed(header, _changed(claims, change), key)
    yield from _unsigned(token, header, claims, other_id)
    yield from _odd_json(header, claims, key, how)
    yield from _other_keys(header, claims, secret, public_keys)


def _unsigned(
    token: str, header: dict[str, Any], claims: dict[str, Any], other_id: object
) -> Iterator[tuple[str, str]]:
    head, body, signature = token.split(".")
    other = segment(claims | {"sub": str(other_id)})
    longer = segment(claims | {"exp": int(time.time()) + 10**6})
    yield "another account, old signature", f"{head}.{other}.{signature}"
    yield "a longer life, old signature", f"{head}.{longer}.{signature}"
    for name in ("none", "None", "NONE"):
        for end in (".", "", f".{signature}"):
            text = f"{segment(header | {'alg': name})}.{body}"
            yield (
                f"alg {name} with {'a' if len(end) > 1 else 'no'} signature{' nor dot' if not end else ''}",
                text + end,
            )
    for change in (
        signature[:-1],
        signature[:-4],
        signature[:10],
        "",
        signature[::-1],
        signature + "A",
        signature * 2,
        "AAAA",
    ):
        yield f"signature {len(change)} characters long", f"{head}.{body}.{change}"
    for left, right in ((" ", ""), ("", " "), ("", "="), ("", "=="), ("", "\t"), ("", "%00"), ("", ",")):
        for place, text in (
            ("header", f"{left}{head}{right}.{body}.{signature}"),
            ("end", f"{head}.{body}.{signature}{right or left}"),
        ):
            if text.strip() != token:  # white space around a field's value is no part of it (RFC 9110 section 5.5)
                yield f"{left or right!r} at the {place}", text
    yield "a fourth part", f"{token}.{signature}"
    yield "two tokens with a comma", f"{token},{token}"
    yield "standard base64", f"{head}.{body}.{signature[:-2]}+/"
    yield "five parts as in JWE", f"{head}.{body}.{signature}.{head}.{body}"
    yield "JSON serialisation", json.dumps({"protected": head, "payload": body, "signature": signature})
    yield "upper case", token.upper()
    for text in ("..", ".", "null", "undefined", "a.b.c", "a" * 5000, f"{'a' * 5000}.b.c", "true", "{}", "0"):
        yield f"{text[:12]!r}", text


def _odd_json(header: dict[str, Any], claims: dict[str, Any], key: bytes, how: str) -> Iterator[tuple[str, str]]:
    """What parsers of JSON disagree on."""
    text = json.dumps(header)
    for name, value in (("alg", "none"), ("kid", "00000000"), ("typ", "JWT")):
        for doubled in (f'{{"{name}": "{value}", {text[1:]}', f'{text[:-1]}, "{name}": "{value}"}}'):
            yield f"header with {name} twice, {how}", signed(doubled.encode(), claims, key)
    yield (
        f"header with alg twice alike, {how}",
        signed(f'{{"alg": "{header.get("alg")}", {text[1:]}'.encode(), claims, key),
    )
    body = json.dumps(claims)
    for name in claims:
        yield f"claim {name} twice, {how}", signed(header, f'{{"{name}": "1", {body[1:]}'.encode(), key)
    for bad in (b"", b"null", b"[]", b'"text"', b"1", b"{", b"\xff\xfe", b"[" * 1000, b"NaN", b"{}", b"{\x00}"):
        yield f"claims {bad[:8]!r}, {how}", signed(header, bad, key)
        yield f"header {bad[:8]!r}, {how}", signed(bad, claims, key)
    for number in ("Infinity", "-Infinity", "NaN", "1e999", "1" + "0" * 1000, "1.0", "0x7fffffff", "1_000"):
        for name in ("exp", "iat"):
            if name in claims:
                odd = json.dumps(claims | {name: "N"}).replace('"N"', number)
                yield f"{name} {number[:10]}, {how}", signed(header, odd.encode(), key)


def _other_keys(
    header: dict[str, Any], claims: dict[str, Any], secret: str, public_keys: tuple[bytes, ...]
) -> Iterator[tuple[str, str]]:
    for key in (
        b"",
        b"\0",
        b"secret",
        b"key",
        b"changeme",
        b"null",
        _OTHER_KEY,
        *([secret[:-1].encode()] if secret else []),
    ):
        yield f"key {key[:9]!r}", signed(header, claims, key)
    yield "another key with its kid", signed(header | {"kid": kid_of(_OTHER_KEY.decode())}, claims, _OTHER_KEY)
    for digest in ("sha384", "sha512", "sha1"):
        yield f"{digest} of another key", signed(header, claims, _OTHER_KEY, digest)
        if secret:
            yield f"{digest} of the key", signed(header, claims, secret.encode(), digest)
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    for name in ("RS256", header.get("alg", "HS256")):
        text = f"{segment(header | {'alg': name})}.{segment(claims)}"
        mark = private.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())
        yield f"our own RSA key as {name}", f"{text}.{segment(mark)}"
    for number, public in enumerate(public_keys):
        for alg in ("HS256", header.get("alg", "HS256")):
            yield f"published key {number} as a secret, alg {alg}", signed(header | {"alg": alg}, claims, public)


def pem_forms(jwks: dict[str, Any]) -> tuple[bytes, ...]:
    """The published RSA keys in every form that might be mistaken for a secret."""
    found: list[bytes] = []
    for key in jwks.get("keys", ()):
        found.append(json.dumps(key).encode())
        if key.get("kty") == "RSA":
            numbers = rsa.RSAPublicNumbers(_number(key["e"]), _number(key["n"])).public_key()
            pem = numbers.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
            found += [
                pem,
                pem.strip(),
                numbers.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo),
            ]
    return tuple(found)


def _number(text: str) -> int:
    return int.from_bytes(_decoded(text), "big")


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _changed(values: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in (values | change).items() if value is not _REMOVED}


def _told(change: dict[str, Any]) -> str:
    ((name, value), *_) = change.items()
    return f"{name} removed" if value is _REMOVED else f"{name}={str(value)[:30]!r}"
