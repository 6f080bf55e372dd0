"""A network that fails on purpose, on the loopback interface: between workers and coordinators, and before PostgreSQL.

``HttpProxy`` understands where an HTTP message ends and nothing more. It spreads requests over the coordinators, and per
request it can cut the line before or after the coordinator has acted, hold an answer, send a request twice, or fall silent.
``TcpProxy`` knows no protocol: it delays, cuts or freezes whole connections, as a half-open TCP connection does.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from benchmarks.chaos.journal import Journal, answered, asked

Address = tuple[str, int]
# cut: before the request reaches anybody. drop: the coordinator answers, the client hears nothing. hold: the answer comes late.
# twice: the request is carried out by two coordinators. mute: as drop, and the connection stays open, silent.
Fault = Literal["cut", "drop", "hold", "twice", "mute"]
_LARGEST = 1 << 20


class Message(NamedTuple):
    """One HTTP/1.1 message. ``start`` is its first line, ``raw`` all of it."""

    start: str
    headers: dict[str, str]
    body: bytes
    raw: bytes


async def _read(stream: asyncio.StreamReader) -> Message | None:
    """The next message, None where the connection ended first."""
    try:
        head = await stream.readuntil(b"\r\n\r\n")
        start, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines) if name}
        body = await stream.readexactly(int(headers.get("content-length", 0)))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    return Message(start, headers, body, head + body)


class _Proxy:
    """A listening port with an event loop in a thread of its own; a context manager."""

    def __init__(self, port: int = 0, host: str = "127.0.0.1") -> None:
        self.port = port
        self.host = host
        self._loop = asyncio.new_event_loop()
        self._connections: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[Any]] = set()

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, self.host, self.port, limit=_LARGEST, backlog=2048)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _end(self) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._connections.add(writer)
        try:
            await self._serve(reader, writer)
        except (ConnectionError, OSError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            self._connections.discard(writer)
            with contextlib.suppress(RuntimeError):
                writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise NotImplementedError

    def cut(self) -> None:
        """Reset every connection there is now."""

        def abort() -> None:
            for writer in list(self._connections):
                writer.transport.abort()

        self._loop.call_soon_threadsafe(abort)


class HttpProxy(_Proxy):
    """Requests to any of ``upstreams``, with the fault that ``choose`` names for a request.

    Args:
        choose: of the journal's view of a request; None leaves it in peace.
        journal: where answers are noted before they are passed on, for workers that keep no journal.
        doubles: where the answers to the second copies of requests are noted.
    """

    def __init__(
        self,
        upstreams: Sequence[Address],
        choose: Callable[[Mapping[str, Any]], Fault | None] = lambda _line: None,
        *,
        port: int = 0,
        hold_s: float = 1.0,
        journal: Journal | None = None,
        doubles: Journal | None = None,
        acknowledged: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(port)
        self.faults: dict[str, int] = {}
        self._upstreams = list(upstreams)
        self._choose = choose
        self._hold_s = hold_s
        self._journal = journal
        self._doubles = doubles
        self._acknowledged = acknowledged

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (request := await _read(reader)) is not None:
            method, target, _ = request.start.split(" ", 2)
            line = asked(method, target, request.body)
            fault = self._choose(line)
            if fault:
                self.faults[fault] = self.faults.get(fault, 0) + 1
            if fault == "cut":
                return
            if fault == "twice":
                again = asyncio.create_task(self._send(request, line, self._doubles))
                self._tasks.add(again)
                again.add_done_callback(self._tasks.discard)
            answer = await self._send(request, line, self._journal)
            if answer is None or fault == "drop":
                return
            if fault == "mute":
                await reader.read()  # until the client gives up
                return
            if fault == "hold":
                await asyncio.sleep(random.uniform(0, self._hold_s))
            writer.write(answer.raw)
            await writer.drain()
            if answer.headers.get("connection") == "close":
                return

    async def _send(self, request: Message, line: dict[str, Any], journal: Journal | None) -> Message | None:
        """The answer of one coordinator that can be reached; None where there is none."""
        if journal:
            journal.sending(line)
        began = time.time()
        answer = await self._forward(request)
        status = int(answer.start.split(" ")[1]) if answer else None
        if answer and line["do"] == "result" and status == 201:
            self._acknowledged()
        if journal:
            told = answered(status, answer.headers, answer.body) if answer and status else {"status": None}
            journal.note({**line, **told}, began)
        return answer

    async def _forward(self, request: Message) -> Message | None:
        for address in random.sample(self._upstreams, len(self._upstreams)):
            try:
                reader, writer = await asyncio.open_connection(*address, limit=_LARGEST)
            except OSError:
                continue  # the next coordinator: nothing was sent
            try:
                writer.write(request.raw)
                return await _read(reader)
            except ConnectionError:
                return None
            finally:
                writer.close()
        return None


class TcpProxy(_Proxy):
    """Bytes to and from ``upstream``, a port or a socket file. ``latency_s`` and ``frozen`` may be changed at any time."""

    def __init__(self, upstream: Address | Path, *, host: str = "127.0.0.1") -> None:
        super().__init__(host=host)
        self.latency_s = 0.0
        self.frozen = False
        self._upstream = upstream

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if isinstance(self._upstream, Path):
            their_reader, their_writer = await asyncio.open_unix_connection(self._upstream)
        else:
            their_reader, their_writer = await asyncio.open_connection(*self._upstream)
        self._connections.add(their_writer)
        try:
            await asyncio.gather(self._pump(reader, their_writer), self._pump(their_reader, writer))
        finally:
            self._connections.discard(their_writer)
            their_writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while block := await reader.read(65536):
            while self.frozen:
                await asyncio.sleep(0.01)
            if self.latency_s:
                await asyncio.sleep(self.latency_s)
            writer.write(block)
            await writer.drain()
        writer.close()
