"""The process of a node of `Loopback`: an agent behind a socket.

    driver -> agent   [number, "push", bytes] or [number, "poll", received]
    agent -> driver   [number, nil or bytes]

When the driver is gone, for whatever reason, the workers are ended.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import Any

from asyncflow.errors import AgentGoneError
from asyncflow.testing.message_stream import MessageStream
from asyncflow.workers.cluster.agent_thread import AgentThread


def main(descriptor: int) -> None:
    """Host workers for the driver at the other end of this socket, until that is gone."""
    asyncio.run(_serve(socket.socket(fileno=descriptor)))


async def _serve(end: socket.socket) -> None:
    agent = AgentThread()
    answering: set[asyncio.Task[None]] = set()

    def on_request(message: list[Any]) -> None:
        task = asyncio.ensure_future(answer(*message))
        answering.add(task)
        task.add_done_callback(answering.discard)

    async def answer(number: int, verb: str, argument: Any) -> None:
        with suppress(AgentGoneError):  # the driver notices when this process has ended
            said = await (agent.push if verb == "push" else agent.poll)(argument)
            driver.send(number, said)

    driver = MessageStream(end, on_request, lambda: agent.end("its driver is gone"))
    await asyncio.wrap_future(agent.ended)
    driver.close()
