"""A network that fails on order: a proxy between a client and an HTTP server that spoils the requests it is told to."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum, auto


class Fault(Enum):
    """What can happen to the answer of a request."""

    SLOW_DOWN = auto()
    """503 SlowDown; the server never sees the request."""
    RESET = auto()
    """The connection is reset in mid-body (for an answer without a body: in place of it, after the server acted)."""
    CUT = auto()
    """The connection is closed in mid-body, as if that were all."""
    TRUNCATED = auto()
    """Half the body, under a Content-Length that says so: to HTTP a complete answer."""
    STALL = auto()
    """Half the body, then nothing more on an open connection."""
    WRONG_BYTE = auto()
    """One byte of the body is another."""
    FORBIDDEN = auto()
    """403 AccessDenied."""
    MISSING = auto()
    """404 NoSuchKey."""
    EXPIRED_LISTING = auto()
    """400: the continuation token of the listing is not valid any more."""


_REFUSALS = {
    Fault.SLOW_DOWN: (503, "SlowDown", "Please reduce your request rate."),
    Fault.FORBIDDEN: (403, "AccessDenied", "Access Denied."),
    Fault.MISSING: (404, "NoSuchKey", "The specified key does not exist."),
    Fault.EXPIRED_LISTING: (400, "InvalidArgument", "The continuation token provided is incorrect."),
}


@dataclass(frozen=True)
class Request:
    """What a client asked for."""

    number: int
    """Counted from 0, over all connections."""
    method: str
    target: str
    """Path and query."""
    range: str | None
    """Its Range header."""


@dataclass
class FaultyNetwork:
    """A running proxy.

    `decide` is asked about every request and can be replaced at any time; `requests` is the log.
    """

    port: int
    decide: Callable[[Request], Fault | None] = lambda _: None
    requests: list[tuple[Request, Fault | None]] = field(default_factory=list)

    @property
    def endpoint(self) -> str:
        """Its URL."""
        return f"http://127.0.0.1:{self.port}"

    def of(self, part: str) -> list[Request]:
        """The requests whose target contains `part`."""
        return [request for request, _ in self.requests if part in request.target]


@contextmanager
def faulty_network(server_port: int) -> Iterator[FaultyNetwork]:
    """Run a proxy in front of 127.0.0.1:`server_port`, in a thread."""
    loop = asyncio.new_event_loop()
    network = FaultyNetwork(0)

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError, OSError):
            await _Connection(network, server_port, reader, writer).serve()
        writer.close()

    listener = loop.run_until_complete(asyncio.start_server(connect, "127.0.0.1", 0))
    network.port = listener.sockets[0].getsockname()[1]
    thread = threading.Thread(target=loop.run_forever, name="faulty-network", daemon=True)
    thread.start()
    try:
        yield network
    finally:

        def end() -> None:
            listener.close()
            for task in asyncio.all_tasks(loop):
                task.cancel()
            loop.call_later(0.1, loop.stop)

        loop.call_soon_threadsafe(end)
        thread.join(10)
        loop.close()


class _Connection:
    def __init__(
        self, network: FaultyNetwork, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._network, self._port, self._reader, self._writer = network, port, reader, writer

    async def serve(self) -> None:
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        try:
            while line := await self._reader.readline():
                method, target, _ = line.decode("latin-1").split(" ", 2)
                head, headers = await _read_headers(self._reader)
                if headers.get("expect"):
                    self._writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                    head = b"".join(part for part in head.splitlines(True) if not part.lower().startswith(b"expect:"))
                body = await _read_body(self._reader, headers, until_end=False)
                request = Request(len(self._network.requests), method, target, headers.get("range"))
                fault = self._network.decide(request)
                self._network.requests.append((request, fault))
                if fault in _REFUSALS:
                    await self._refuse(fault, method)
                    continue
                if server is None:
                    server = await asyncio.open_connection("127.0.0.1", self._port, limit=2**20)
                server[1].write(line + head + b"\r\n" + body)
                if not await self._answer(server[0], method, fault):
                    return
        finally:
            if server is not None:
                server[1].close()

    async def _refuse(self, fault: Fault, method: str) -> None:
        status, code, message = _REFUSALS[fault]
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
        head = f"HTTP/1.1 {status} {code}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n\r\n"
        self._writer.write(head.encode() + (b"" if method == "HEAD" else body))
        await self._writer.drain()

    async def _answer(self, server: asyncio.StreamReader, method: str, fault: Fault | None) -> bool:
        """Pass the answer on; whether the connection can go on after it."""
        status_line = await server.readline()
        status = int(status_line.split()[1])
        head, headers = await _read_headers(server)
        bare = method == "HEAD" or status in (204, 304)
        body = b"" if bare else await _read_body(server, headers, until_end=True)
        kept = len(body) // 2
        if fault is Fault.RESET:
            self._writer.write((status_line + head + b"\r\n" + body[:kept]) if body else b"")
            await self._writer.drain()
            await asyncio.sleep(0.05)  # what was sent must arrive before the reset overtakes it
            raw = self._writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._writer.transport.abort()
            return False
        if fault is Fault.TRUNCATED and body:
            head = b"".join(
                f"Content-Length: {kept}\r\n".encode() if part.lower().startswith(b"content-length:") else part
                for part in head.splitlines(True)
            )
            body = body[:kept]
        elif fault is Fault.WRONG_BYTE and body:
            body = body[:kept] + bytes([body[kept] ^ 0xFF]) + body[kept + 1 :]
        elif fault in (Fault.CUT, Fault.STALL) and body:
            self._writer.write(status_line + head + b"\r\n" + body[:kept])
            await self._writer.drain()
            if fault is Fault.STALL:
                await self._reader.read()  # until the client gives up
            return False
        self._writer.write(status_line + head + b"\r\n" + body)
        await self._writer.drain()
        return headers.get("connection", "").lower() != "close"


async def _read_headers(reader: asyncio.StreamReader) -> tuple[bytes, dict[str, str]]:
    lines = []
    while (line := await reader.readline()) not in (b"\r\n", b""):
        lines.append(line)
    pairs = (line.decode("latin-1").partition(":") for line in lines)
    return b"".join(lines), {name.strip().lower(): value.strip() for name, _, value in pairs}


async def _read_body(reader: asyncio.StreamReader, headers: dict[str, str], *, until_end: bool) -> bytes:
    """A body as it travels, chunk sizes included."""
    if "chunked" in headers.get("transfer-encoding", "").lower():
        parts = []
        while True:
            size_line = await reader.readline()
            size = int(size_line.split(b";")[0], 16)
            parts += [size_line, await reader.readexactly(size + 2)] if size else [size_line]
            if size == 0:
                while (line := await reader.readline()) not in (b"\r\n", b""):
                    parts.append(line)
                return b"".join([*parts, b"\r\n"])
    if "content-length" in headers:
        return await reader.readexactly(int(headers["content-length"]))
    return await reader.read() if until_end else b""
