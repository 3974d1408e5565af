"""A load generator: connections that are kept, the next request as soon as an answer is in."""

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)
_HEAD_END = b"\r\n\r\n"

Make = Callable[[], bytes]
"""The bytes of the next request."""


@dataclass(frozen=True)
class Load:
    """What was answered, in how many seconds."""

    requests: int
    seconds: float


def request(
    method: str, target: str, *, token: str | None = None, body: bytes = b"", headers: tuple[str, ...] = ()
) -> bytes:
    """One request as it goes over the wire."""
    lines = [f"{method} {target} HTTP/1.1", "Host: bench", *headers]
    if token:
        lines.append(f"Authorization: Bearer {token}")
    if body:
        lines += ["Content-Type: application/x-www-form-urlencoded", f"Content-Length: {len(body)}"]
    return "\r\n".join(lines).encode() + _HEAD_END + body


async def run(port: int, make: Make, *, seconds: float, connections: int) -> Load:
    """Ask for `seconds` over that many connections; an answer that is no 200 is a RuntimeError."""
    number = 0
    give_up = time.perf_counter() + seconds

    async def ask() -> None:
        nonlocal number
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            while time.perf_counter() < give_up:
                number += 1
                await answer(reader, writer, make())
        finally:
            writer.close()
            await writer.wait_closed()

    begun = time.perf_counter()
    await asyncio.gather(*(ask() for _ in range(connections)))
    return Load(number, time.perf_counter() - begun)


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sent: bytes) -> bytes:
    """Send one request and read the body of its answer."""
    writer.write(sent)
    head = await reader.readuntil(_HEAD_END)
    length = _LENGTH.search(head)
    if length is None or not head.startswith(b"HTTP/1.1 200 "):
        raise RuntimeError(f"{sent.splitlines()[0].decode()} was answered {head.splitlines()[0].decode()}")
    return await reader.readexactly(int(length[1]))
