"""One HTTP connection: its request line and headers are short and come soon, or it is closed.

uvicorn's parser keeps whatever it is sent until the headers end, for as long as that takes; here both have an end
(``server.limits``), so that slow or endless headers hold neither memory nor a connection.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from server.limits import HEAD_S, LARGEST_HEAD

_BODY = b'{"type":"/problems/%s","title":"%s","status":%d,"detail":"%s","instance":null,"errors":[]}'
_TOO_LONG = ("head-too-large", f"request line and headers have more than {LARGEST_HEAD} bytes; send fewer or shorter ones")


async def _refuse_head(scope: Any, receive: Any, send: Any) -> None:
    """The application of a request whose head was already whole when it was found to be too long."""
    body = _body(431, *_TOO_LONG)
    length = str(len(body)).encode()
    headers = [(b"content-type", b"application/problem+json"), (b"content-length", length), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 431, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _body(status: int, kind: str, detail: str) -> bytes:
    return _BODY % (kind.encode(), kind.replace("-", " ").capitalize().encode(), status, detail.encode())


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with a size and a deadline for the head of each request."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._head = self._came = 0
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._begin()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._begin()

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._head += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._head += len(name) + len(value)

    def on_headers_complete(self) -> None:
        self._end()
        if self._head > LARGEST_HEAD:
            self.app = _refuse_head
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        waiting = self._deadline is not None
        super().data_received(data)
        if waiting and self._deadline is not None:
            # Still no end of the headers: a field that is not complete yet is counted by what came in.
            self._head = max(self._head, self._came + len(data))
            self._came += len(data)
            if self._head > LARGEST_HEAD:
                self._refuse(431, *_TOO_LONG)

    def _begin(self) -> None:
        self._end()
        self._head = self._came = 0
        self._deadline = self.loop.call_later(HEAD_S, self._late)

    def _end(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _late(self) -> None:
        self._refuse(408, "too-slow", f"the headers did not end within {HEAD_S:g} s")

    def _refuse(self, status: int, kind: str, detail: str) -> None:
        self._end()
        if self.transport is None or self.transport.is_closing():
            return
        body = _body(status, kind, detail)
        head = b"content-type: application/problem+json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
        self.transport.write(STATUS_LINE[status] + head + body)
        self.transport.close()
