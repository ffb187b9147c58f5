"""Writing lines to a descriptor, whoever reads it and however slowly."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from asyncflow.cli.nonblocking_output import NonblockingOutput

if TYPE_CHECKING:
    from pathlib import Path

LINES = "".join(f"line {number}\n" for number in range(100_000))  # far more than a pipe holds


@pytest.fixture
def pipe():
    """A pipe's two ends: reading, writing."""
    reading, writing = os.pipe()
    yield reading, writing
    for descriptor in (reading, writing):
        with suppress(OSError):
            os.close(descriptor)


def read_all(descriptor: int, *, delay: float = 0.0) -> bytes:
    """Everything up to the end, begun after so many seconds."""
    time.sleep(delay)
    with os.fdopen(os.dup(descriptor), "rb") as file:
        return file.read()


async def test_file_gets_everything(tmp_path: Path) -> None:
    """A file takes every byte, in order."""
    path = tmp_path / "log"
    with path.open("wb") as file:
        output = NonblockingOutput(file.fileno())
        await output.write("grün\n")
        await output.write(LINES)
    assert path.read_text(encoding="utf-8") == "grün\n" + LINES


async def test_full_pipe_does_not_stop_the_loop(pipe) -> None:
    """While nobody reads, the event loop goes on, and nothing is lost."""
    reading, writing = pipe
    writer = asyncio.create_task(write_and_close(writing))
    for _ in range(20):
        await asyncio.sleep(0.005)  # a write on this thread would never come back to it
    assert not writer.done()
    assert (await asyncio.to_thread(read_all, reading)).decode() == LINES
    await writer


async def write_and_close(descriptor: int) -> None:
    """Write all lines, and let the reader know that there are no more."""
    await NonblockingOutput(descriptor).write(LINES)
    os.close(descriptor)


async def test_reader_that_has_gone_costs_nothing(pipe) -> None:
    """When nobody reads any more, what is written is dropped, without an error."""
    reading, writing = pipe
    os.close(reading)
    output = NonblockingOutput(writing)
    await output.write("nobody reads this\n")
    assert output.broken
    await output.write(LINES)
    output.write_nowait("nor this\n")


async def test_what_the_encoding_lacks_is_escaped(tmp_path: Path) -> None:
    """A character that the terminal's encoding lacks is shown as its escape, not as an error."""
    path = tmp_path / "log"
    with path.open("wb") as file:
        await NonblockingOutput(file.fileno(), encoding="ascii").write("grün \ud800\n")
    assert path.read_bytes() == b"gr\\xfcn \\ud800\n"


async def test_nonblocking_descriptor_gets_everything(pipe) -> None:
    """A pipe that somebody has made non-blocking gets every byte all the same."""
    reading, writing = pipe
    os.set_blocking(writing, False)
    read = asyncio.create_task(asyncio.to_thread(read_all, reading, delay=0.05))
    await write_and_close(writing)
    assert (await read).decode() == LINES
