"""A real HTTP server that does what a test tells it to: answers late, not at all, too much, or hangs up."""

import asyncio
import gzip
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

Act = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Received:
    """One request."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


class HttpServer:
    """Plays the acts of a path in turn; the last repeats."""

    def __init__(self) -> None:
        self.acts: dict[str, list[Act]] = {}
        self.received: list[Received] = []
        self.port = 0

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def play(self, path: str, *acts: Act) -> None:
        """Do this at requests of `path`."""
        self.acts[path] = list(acts)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        try:
            while True:
                first, *rows = (await reader.readuntil(b"\r\n\r\n")).decode().rstrip().split("\r\n")
                method, target, _ = first.split(" ")
                headers = {name.lower(): value for name, value in (row.split(": ", 1) for row in rows)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                self.received.append(Received(method, target, headers, body))
                acts = self.acts[target.partition("?")[0]]
                await (acts.pop(0) if len(acts) > 1 else acts[0])(writer)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client has left
        finally:
            writer.close()


def answer(status: int = 200, body: bytes = b"{}", **headers: str) -> Act:
    """Send a whole answer; `Retry_After` is `Retry-After`."""
    rows = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())

    async def act(writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 {status} OK\r\nContent-Length: {len(body)}\r\n{rows}\r\n".encode() + body)

    return act


async def hang(writer: asyncio.StreamWriter) -> None:
    """Say nothing until the client leaves."""
    while not writer.transport.is_closing():  # noqa: ASYNC110  a transport has no event
        await asyncio.sleep(0.01)


async def reset(writer: asyncio.StreamWriter) -> None:
    """Hang up."""
    writer.transport.abort()
    raise ConnectionResetError


async def endless(writer: asyncio.StreamWriter) -> None:
    """Send a body without end."""
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"1000\r\n" + b"x" * 4096 + b"\r\n")
        await writer.drain()


async def surplus(writer: asyncio.StreamWriter) -> None:
    """Send a whole packed body, and go on without end."""
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Encoding: gzip\r\n\r\n")
    packed = gzip.compress(b"{}")
    writer.write(b"%x\r\n%b\r\n" % (len(packed), packed))
    while True:
        writer.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
        await writer.drain()


async def drip(writer: asyncio.StreamWriter) -> None:
    """Send a byte now and then, each within any read timeout."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.02)


def certificate(name: str, folder: Path) -> Path:
    """Make a certificate for `name` that signs itself, with its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = folder / f"{name}.pem"
    path.write_bytes(private + made.public_bytes(pem))
    return path


@asynccontextmanager
async def http_server(tls: Path | None = None) -> AsyncIterator[HttpServer]:
    """A server on a port of its own; with a certificate it speaks TLS."""
    found = HttpServer()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH) if tls else None
    if context and tls:
        context.load_cert_chain(tls)
    listening = await asyncio.start_server(found.serve, "127.0.0.1", 0, ssl=context)
    found.port = listening.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        listening.close()
