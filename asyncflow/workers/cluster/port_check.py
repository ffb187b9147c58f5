"""Asks the port of a cluster a question of its own protocol, before the cluster's client does.

The clients of Ray and Dask try for a long time, and write warnings to the terminal meanwhile, if
nobody listens, if something else does, or if what listens is silent. The questions here have an
answer at once, or the address is wrong.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from asyncflow.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    _Question = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[bool]]

ANSWER_SECONDS: Final = 8.0
"""For what listens to answer; a connection over the internet takes a small part of it."""
_MOST_FRAME: Final = 1 << 20  # of Dask's greeting, which has some hundred bytes
_SETTINGS, _HEADERS, _END_OF_STREAM = 4, 1, 3  # HTTP/2's types of frames
_OTHER_STATUS: Final = frozenset(range(0x89, 0x8F))
"""How headers begin that have one of HTTP/2's usual statuses other than 200."""


async def check_grpc(name: str, host: str, port: int, seconds: float = ANSWER_SECONDS) -> None:
    """Refuse a port that does not speak gRPC, as the head of a Ray cluster does.

    Raises:
        ClusterError: Nobody listens there, or no answer comes, or something else listens.
    """
    await _check(name, host, port, _ask_grpc, "the head of the cluster", seconds)


async def check_dask(name: str, host: str, port: int, seconds: float = ANSWER_SECONDS) -> None:
    """Refuse a port at which no Dask scheduler without TLS greets who connects.

    Raises:
        ClusterError: Nobody listens there, or no greeting comes, or something else listens.
    """
    await _check(name, host, port, _hear_dask, "the scheduler of the cluster", seconds)


async def check_listens(name: str, host: str, port: int, seconds: float = ANSWER_SECONDS) -> None:
    """Refuse a port at which nobody listens.

    Raises:
        ClusterError: Nobody listens there, or no connection is made.
    """
    await _check(name, host, port, None, "the cluster", seconds)


async def _check(
    name: str, host: str, port: int, ask: _Question | None, what: str, seconds: float
) -> None:
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                is_right = ask is None or await ask(reader, writer)
            finally:
                writer.close()
    except TimeoutError as error:
        why = f"no answer within {seconds:g} s"
        raise _silent(name, why, what) from error
    except OSError as error:
        raise _silent(name, str(error).partition("\n")[0], what) from error
    except (ValueError, OverflowError) as error:  # the host is no name, or the port none of TCP's
        message = f"{name} cannot be connected to ({error}): check the address"
        raise ClusterError(message) from error
    if not is_right:
        message = f"{name} is not {what}: something else listens there; check the address"
        raise ClusterError(message)


def _silent(name: str, why: str, what: str) -> ClusterError:
    return ClusterError(
        f"{name} does not answer ({why}): check the address, and that {what} is up and can be "
        "reached from this machine"
    )


def _frame(kind: int, flags: int, stream: int, data: bytes) -> bytes:
    return len(data).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + data


def _text(value: bytes) -> bytes:
    return bytes([len(value)]) + value


# HPACK without its table of recent headers: names by their number in the fixed table, or in full.
_QUESTION: Final = (
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    + _frame(_SETTINGS, 0, 0, b"")
    + _frame(
        _HEADERS,
        4,  # all headers are in this frame
        1,
        b"\x83\x86"  # POST, http
        + (b"\x04" + _text(b"/ray.rpc.NodeInfoGcsService/CheckAlive"))
        + (b"\x01" + _text(b"localhost"))
        + (b"\x0f\x10" + _text(b"application/grpc"))
        + (b"\x00" + _text(b"te") + _text(b"trailers")),
    )
    + _frame(0, 1, 1, bytes(5))  # an empty message, and no more
)


async def _ask_grpc(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Whether a call is answered by gRPC, be it with an error of its own."""
    writer.write(_QUESTION)
    with suppress(asyncio.IncompleteReadError, ConnectionError):
        kind, data = await _next_frame(reader)
        if kind != _SETTINGS:
            return False
        while kind != _HEADERS:
            kind, data = await _next_frame(reader)
            if kind == _END_OF_STREAM:
                return False
        return bool(data) and data[0] not in _OTHER_STATUS
    return False


async def _next_frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readexactly(9)
    if head[:5] == b"HTTP/":  # it speaks an older version
        return -1, b""
    return head[3], await reader.readexactly(int.from_bytes(head[:3]))


async def _hear_dask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Whether a greeting comes that can be one of Dask's: a number of bytes, and as many bytes."""
    del writer
    try:
        size = int.from_bytes(await reader.readexactly(8), "little")
        return size <= _MOST_FRAME and bool(await reader.readexactly(size))
    except (asyncio.IncompleteReadError, ConnectionError):
        return False
