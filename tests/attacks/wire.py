"""Requests as bytes: what no client library would send."""

import asyncio
import ssl
from collections.abc import Sequence
from contextlib import suppress
from urllib.parse import urlsplit

import httpx

from tests.attacks.target import Target


def request(method: str, path: str, *, headers: Sequence[tuple[bytes, bytes]] = (), body: bytes = b"") -> bytes:
    """A request; {host} stands for the host of the target. Nothing is added but Host and Connection."""
    fields = [(b"Host", b"{host}"), *headers, (b"Connection", b"close")]
    head = [f"{method} {path} HTTP/1.1".encode(), *(name + b": " + value for name, value in fields)]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


async def exchange(target: Target, sent: bytes, *, seconds: float = 5, process: int = 0) -> list[httpx.Response]:
    """Send the bytes on a connection of their own; all answers until it is closed or nothing comes any longer."""
    url = urlsplit(target.urls[process % len(target.urls)])
    port = url.port or (443 if url.scheme == "https" else 80)
    secure = ssl.create_default_context() if url.scheme == "https" else None
    local = (target.visit(), 0) if target.own_addresses else None
    reader, writer = await asyncio.wait_for(
        asyncio.open_connection(url.hostname, port, ssl=secure, local_addr=local), 10
    )
    received = bytearray()
    try:
        writer.write(sent.replace(b"{host}", url.netloc.encode()))
        with suppress(ConnectionError, TimeoutError):
            await asyncio.wait_for(writer.drain(), seconds)
            while chunk := await asyncio.wait_for(reader.read(65536), seconds):
                received += chunk
    finally:
        writer.close()
        with suppress(ConnectionError, TimeoutError, ssl.SSLError):
            await asyncio.wait_for(writer.wait_closed(), 5)
    answers = list(_answers(bytes(received)))
    for answer in answers:
        first = sent.splitlines()[0][:60].decode("latin-1") if sent.strip() else "nothing"
        target.watch(f"raw {first}", answer.status_code, answer.headers)
    return answers


def _answers(data: bytes) -> "list[httpx.Response]":
    found = []
    while data.startswith(b"HTTP/1."):
        head, _, rest = data.partition(b"\r\n\r\n")
        status_line, *lines = head.split(b"\r\n")
        pairs = [tuple(line.split(b":", 1)) for line in lines if b":" in line]
        headers = [(name.strip(), value.strip(b" ")) for name, value in pairs]
        named = {name.lower(): value for name, value in headers}
        status = int(status_line.split(b" ")[1])
        if status < 200:
            data = rest
            continue
        if b"chunked" in named.get(b"transfer-encoding", b"").lower():
            body, _, rest = rest.partition(b"0\r\n\r\n")
        else:
            length = int(named.get(b"content-length", len(rest)))
            body, rest = rest[:length], rest[length:]
        kept = [
            (n, v)
            for n, v in headers
            if n.lower() not in (b"content-length", b"transfer-encoding", b"content-encoding")
        ]
        found.append(httpx.Response(status, headers=kept, content=body))
        data = rest
    return found
