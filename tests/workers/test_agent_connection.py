"""The driver's end of the way to an agent: what was posted is sent, however much it is."""

from __future__ import annotations

import asyncio
from typing import Any

from asyncflow.workers.cluster.agent_connection import AgentConnection, SharedRuns
from asyncflow.workers.cluster.agent_thread import AgentThread
from asyncflow.workers.cluster.batches import BATCH_BYTES


class Here(AgentThread):
    """An agent in this process, and the way to it."""

    node = "here"

    def __init__(self) -> None:
        super().__init__()
        self.pushed: list[bytes] = []

    async def push(self, batch: bytes) -> None:
        """Note it, and have the agent take it in."""
        self.pushed.append(batch)
        await super().push(batch)


async def closed_after(posts):
    """Post this, and then that the agent should close; return what was pushed."""
    heard = []

    def hear(_: AgentConnection, message: list[Any]) -> int:
        heard.append(message[0])
        return 0

    link = Here()
    connection = AgentConnection(link, SharedRuns(), hear)
    serving = asyncio.ensure_future(connection.serve())
    for message, patience in posts:
        connection.post(*message, patience=patience)
    connection.post("close", patience=0.001)
    await serving
    await asyncio.wrap_future(link.ended)
    assert heard == ["up", "closed"]
    return link.pushed


async def test_more_than_a_batch_is_sent_in_several():
    """Without waiting for anything else to be posted."""
    data = bytes(BATCH_BYTES // 3)
    pushed = await closed_after([(("file", 1, f"inputs-{n}", data), 0.0) for n in range(10)])
    assert len(pushed) >= 3
    assert sum(map(len, pushed)) > 10 * len(data)


async def test_what_can_wait_is_sent_together():
    """In one request, with what comes next."""
    assert len(await closed_after([(("forget", n), 0.001) for n in range(10)])) == 1


async def test_what_can_wait_does_not_wait_for_ever():
    """Although nothing that is urgent follows."""
    posts = [(("forget", 1), 1000.0), (("forget", 2), 0.001)]
    assert len(await closed_after(posts)) == 1
