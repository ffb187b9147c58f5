"""The port of a cluster is asked before the cluster's own client tries it for long."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from asyncflow.errors import ClusterError
from asyncflow.workers.cluster.port_check import check_dask, check_grpc, check_listens

CHECKS = [check_grpc, check_dask]
SETTINGS = bytes(3) + b"\x04" + bytes(5)


@asynccontextmanager
async def listening(answer=b"", *, closes=False):
    """A port whose answer to everything this is."""
    writers = []

    async def serve(_reader, writer):
        writers.append(writer)
        writer.write(answer)
        if closes:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.close()


def grpc(headers):
    """What an HTTP/2 server answers."""
    return SETTINGS + len(headers).to_bytes(3) + b"\x01\x04" + (1).to_bytes(4) + headers


@pytest.mark.parametrize("check", [*CHECKS, check_listens])
async def test_a_port_at_which_nobody_listens(check):
    """The system says so, in words."""
    async with listening() as port:
        pass
    with pytest.raises(ClusterError, match=r"^It does not answer \(.*\): check the address"):
        await check("It", "127.0.0.1", port)


@pytest.mark.parametrize("check", [*CHECKS, check_listens])
@pytest.mark.parametrize(
    ("host", "port"), [("a..b", 1), ("x" * 70, 1), ("a\0b", 1), ("127.0.0.1", 99_999)]
)
async def test_an_address_that_cannot_be_one(check, host, port):
    """Python refuses it before anybody is asked."""
    with pytest.raises(ClusterError, match=r"^It cannot be connected to \(.*\): check the address"):
        await check("It", host, port)


@pytest.mark.parametrize("check", CHECKS)
async def test_a_port_that_is_silent(check):
    """It takes connections, and says nothing: Dask would wait for ever."""
    async with listening() as port:
        with pytest.raises(ClusterError, match=r"does not answer \(no answer within 0.2 s\)"):
            await check("It", "127.0.0.1", port, 0.2)
        await check_listens("It", "127.0.0.1", port, 60)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize(
    ("answer", "closes"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", False),
        (b"SSH-2.0-OpenSSH_9.6\r\n", True),
        (b"", True),
        (SETTINGS, True),
        (grpc(b"\x8d"), True),  # of a proxy that knows no such service
    ],
)
async def test_a_port_at_which_something_else_listens(check, answer, closes):
    """A web server's answer would be the size of a greeting that no memory holds."""
    async with listening(answer, closes=closes) as port:
        with pytest.raises(ClusterError, match="something else listens there; check the address"):
            await check("It", "127.0.0.1", port, 60)


@pytest.mark.parametrize(
    ("check", "answer"),
    [
        (check_grpc, grpc(b"\x88\x5f")),
        (check_grpc, grpc(b"\x20\x88\x5f")),  # a new size of the table comes first
        (check_grpc, SETTINGS + SETTINGS + grpc(b"\x88")),
        (check_dask, (3).to_bytes(8, "little") + b"abc"),
    ],
)
async def test_a_port_that_answers(check, answer):
    """In the protocol that is expected there."""
    async with listening(answer) as port:
        await check("It", "127.0.0.1", port, 60)
