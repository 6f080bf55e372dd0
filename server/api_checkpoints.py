"""Checkpoints over HTTP: streamed both ways, never held in memory as a whole, bound to their SHA-256."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import re
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.responses import StreamingResponse

from hypevolve import messages
from server import checkpoints
from server.access import needs
from server.artifacts import CHUNK, Upload
from server.checkpoint_format import Inspection
from server.coordinator import Coordinator, coordinator_of
from server.errors import Conflict, Invalid, TooLarge

router = APIRouter(tags=["worker protocol"])

SILENCE_S = 30.0  # between two pieces of an upload
_DIGEST = re.compile(r"\s*sha-256=:([A-Za-z0-9+/]{43}=):\s*")
_BINARY = {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}


@router.put(
    "/leases/{token}/checkpoint",
    dependencies=[needs("worker")],
    openapi_extra={"requestBody": {"required": True, **_BINARY}},
)
async def put(
    request: Request,
    token: str,
    repr_digest: Annotated[str, Header(description="`sha-256=:BASE64:` (RFC 9530)", max_length=200)],
    epoch: Annotated[int, Query(ge=0, le=1_000_000, description="epochs done")] = 0,
) -> messages.Checkpoint:
    """Store where a training stands: one safetensors file or one JSON document. Only the newest token of a candidate may.

    Sending the same content again changes nothing.
    """
    coordinator = coordinator_of(request)
    wanted = _sha256(repr_digest)
    if coordinator.artifacts is None:
        raise Conflict("no-artifact-store", "this coordinator has no artifact store; start it with --artifacts")
    most = coordinator.most_checkpoint_bytes
    if int(request.headers.get("content-length") or 0) > most:
        raise TooLarge("checkpoint-size", f"a checkpoint has at most {most} bytes here (--most-checkpoint-gb)")
    name = await _stored(coordinator, partial(checkpoints.announce, token=token, sha256=wanted, epoch=epoch))
    if isinstance(name, messages.Checkpoint):
        return name
    try:
        async with coordinator.transfers:
            with await coordinator.moving(partial(coordinator.artifacts.create, name)) as upload:
                size = await _receive(request, coordinator, upload, wanted, most)
        await _stored(coordinator, partial(checkpoints.complete, token=token, name=name, size=size))
    except BaseException:
        await asyncio.shield(_stored(coordinator, partial(checkpoints.abandon, name=name)))
        raise
    return messages.Checkpoint(sha256=wanted, bytes=size, epoch=epoch)


async def _stored(coordinator: Coordinator, work: Any) -> Any:
    return await coordinator.essential(lambda: coordinator.database.run(work, essential=True))


async def _receive(request: Request, coordinator: Coordinator, upload: Upload, wanted: str, most: int) -> int:
    """The length of a body that was written whole and is what its digest says."""
    digest, inspection, waiting, size = hashlib.sha256(), Inspection(), bytearray(), 0

    def write(piece: bytes) -> None:
        digest.update(piece)
        inspection.feed(piece)
        upload.write(piece)

    def end(piece: bytes) -> None:
        write(piece)
        inspection.finish()
        if digest.hexdigest() != wanted:
            raise Invalid(
                "checkpoint-digest", "the content is not that of Repr-Digest; it changed on its way, or as it was read"
            )
        upload.finish()

    pieces = request.stream().__aiter__()
    while True:
        try:
            async with asyncio.timeout(SILENCE_S):
                piece = await anext(pieces, None)
        except TimeoutError as error:
            raise Invalid("checkpoint-slow", f"nothing came for {SILENCE_S:g} s; the checkpoint before stays") from error
        if piece is None:
            break
        size += len(piece)
        if size > most:
            raise TooLarge("checkpoint-size", f"a checkpoint has at most {most} bytes here (--most-checkpoint-gb)")
        waiting += piece
        if len(waiting) >= CHUNK:
            await coordinator.moving(partial(write, bytes(waiting)))
            waiting.clear()
    await coordinator.moving(partial(end, bytes(waiting)))
    return size


@router.get(
    "/candidates/{candidate}/checkpoint",
    dependencies=[needs("worker")],
    response_class=StreamingResponse,
    responses={200: {**_BINARY, "description": "The content; its digest is in Repr-Digest"}},
)
async def get(request: Request, candidate: Annotated[int, Path(ge=1, lt=2**63)]) -> Response:
    """Where a candidate's training stands, for the attempt that goes on with it."""
    coordinator = coordinator_of(request)
    name, checkpoint = await coordinator.ordinary(lambda: coordinator.database.run(lambda c: checkpoints.current(c, candidate)))
    store = coordinator.artifacts
    if store is None:
        raise Conflict("no-artifact-store", "this coordinator has no artifact store; start it with --artifacts")
    chunks = await coordinator.moving(partial(store.read, name))
    digest = base64.b64encode(bytes.fromhex(checkpoint.sha256)).decode()
    headers = {
        "Content-Length": str(checkpoint.bytes),
        "Repr-Digest": f"sha-256=:{digest}:",
        "ETag": f'"{checkpoint.sha256}"',
        "Cache-Control": "no-store",
    }
    return StreamingResponse(chunks, media_type="application/octet-stream", headers=headers)


def _sha256(header: str) -> str:
    """The hash in a Repr-Digest header, as hexadecimal digits."""
    match = _DIGEST.search(header)
    try:
        if match is not None:
            return base64.b64decode(match[1], validate=True).hex()
    except binascii.Error:
        pass
    raise Invalid("repr-digest", f"Repr-Digest is {header[:80]!r}; write sha-256=:BASE64: (RFC 9530)")
