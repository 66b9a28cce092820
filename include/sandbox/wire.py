"""Sends answers over the socket: whole, or broken in the way a fault wants."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable, Iterator

from aiohttp import web

from include.sandbox.answers import Answer
from include.sandbox.bodies import CHUNK_BYTES
from include.sandbox.faults import Fault

_EXTRA_BYTES = 1_000


async def send(
    request: web.Request, answer: Answer, fault: Fault | None, sent: Callable[[int], None]
) -> web.StreamResponse:
    """Send an answer and report the bytes of its body to ``sent`` as they go out."""
    kind = fault.kind if fault else ""
    if fault is None or fault.is_answered_instead:
        return await _send_whole(request, answer, sent)
    if kind in ("reset_before_headers", "reset_after_processing"):
        reset(request)
        return web.Response()
    if kind == "empty_body":
        return web.Response(status=answer.status, headers=answer.headers)
    if kind == "stall_before_headers":
        await asyncio.sleep(fault.seconds)
        return await _send_whole(request, answer, sent)
    return await _send_broken(request, answer, fault, sent)


def reset(request: web.Request) -> None:
    """Break the connection with RST, as a crashed peer or a firewall does."""
    transport = request.transport
    if transport is not None:
        peer = transport.get_extra_info("socket")
        # Lingering for zero seconds turns the close into a reset.
        with contextlib.suppress(OSError):
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()


async def _send_whole(
    request: web.Request, answer: Answer, sent: Callable[[int], None]
) -> web.StreamResponse:
    if answer.size_bytes <= CHUNK_BYTES:
        body = b"".join(_pieces(answer, answer.size_bytes))
        sent(len(body))
        return web.Response(status=answer.status, headers=answer.headers, body=body)
    response = web.StreamResponse(status=answer.status, headers=answer.headers)
    response.content_length = answer.size_bytes
    await response.prepare(request)
    for piece in _pieces(answer, answer.size_bytes):
        await response.write(piece)
        sent(len(piece))
    return response


async def _send_broken(
    request: web.Request, answer: Answer, fault: Fault, sent: Callable[[int], None]
) -> web.StreamResponse:
    size_bytes = answer.size_bytes
    part = size_bytes if fault.kind == "extra_bytes" else int(size_bytes * fault.share)
    response = web.StreamResponse(status=answer.status, headers=answer.headers)
    if fault.kind in ("extra_bytes", "short_body_chunked"):
        response.enable_chunked_encoding()
    else:
        response.content_length = size_bytes
    await response.prepare(request)
    for piece in _pieces(answer, part):
        await response.write(piece)
        sent(len(piece))
    if fault.kind == "extra_bytes":
        await response.write(b"\0" * _EXTRA_BYTES)
    elif fault.kind == "reset_mid_body":
        # Otherwise the reset may overtake what was written.
        await asyncio.sleep(0.05)
        reset(request)
    elif fault.kind == "short_body":
        if request.transport is not None:
            request.transport.close()
    elif fault.kind == "stall":
        await asyncio.sleep(fault.seconds)
        for piece in _pieces(answer, size_bytes, part):
            await response.write(piece)
            sent(len(piece))
    return response


def _pieces(answer: Answer, until: int, start: int = 0) -> Iterator[bytes | memoryview]:
    """The bytes of an answer's body from ``start`` up to ``until``, counted in the answer."""
    if isinstance(answer.body, bytes):
        for at in range(start, until, CHUNK_BYTES):
            yield answer.body[at : min(at + CHUNK_BYTES, until)]
    else:
        yield from answer.body.chunks(answer.start + start, answer.start + until)
