"""uvicorn that cuts nobody short when it stops: by itself it closes connections whose request is still on its way."""

import asyncio
import socket

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

ACCEPT_SECONDS = 0.1
REQUEST_SECONDS = 0.5


class Connection(HttpToolsProtocol):
    """A connection that is not closed before its first request could arrive."""

    def shutdown(self) -> None:
        """Answer what was asked, or is within `REQUEST_SECONDS`, then close."""
        if self.cycle is None:
            self.loop.call_later(REQUEST_SECONDS, super().shutdown)
        else:
            super().shutdown()


class Server(uvicorn.Server):
    """The server of a process that is the only one on its socket."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept what the system has let in already: closing the socket resets it. Then stop as uvicorn does."""
        for listener in sockets or []:
            listener.listen(0)  # nobody else gets in
        await asyncio.sleep(ACCEPT_SECONDS)
        await super().shutdown(sockets)
