"""The driver's end of the way to an agent: what was posted is sent, however much it is."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest
import uvloop

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


class Closing(Here):
    """Its connection is closed at the second poll, by somebody else."""

    def __init__(self) -> None:
        super().__init__()
        self.polls = 0

    async def poll(self, received: int) -> bytes:
        """Cancelled, as the client of an engine does with requests when it is closed."""
        self.polls += 1
        if self.polls > 1:
            raise asyncio.CancelledError
        return await super().poll(received)


async def served(link, then):
    """What is heard of this agent until its connection ends; `then` is called when it is up."""
    heard = []

    def hear(_: AgentConnection, message: list[Any]) -> int:
        heard.append(message)
        if message[:1] == ["up"]:
            then()
        return 0

    async with asyncio.timeout(60):
        with suppress(asyncio.CancelledError):
            await AgentConnection(link, SharedRuns(), hear).serve()
        link.end("the test is over")
        await asyncio.wrap_future(link.ended)
    return heard


async def test_a_request_that_the_client_cancels_means_that_the_node_is_lost():
    """Else its tasks would be waited for without end."""
    heard = await served(Closing(), lambda: None)
    assert [message[0] for message in heard] == ["up", "lost"]


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_an_agent_one_of_whose_callbacks_fails_ends_and_says_why(factory, monkeypatch, caplog):
    """On each event loop that it may have: what the callback should have done is not done."""
    monkeypatch.setattr(asyncio.events, "new_event_loop", factory)

    def fails():
        raise ZeroDivisionError("such a fault")

    async def hears():
        link = Here()
        assert type(link._loop) is type(asyncio.get_running_loop())
        return await served(link, lambda: link._loop.call_soon_threadsafe(fails))

    (*_, last) = asyncio.run(hears())
    assert last == ["closed", "its agent has failed: ZeroDivisionError: such a fault"]
    assert "such a fault" in caplog.text  # in the log of the node, with where it was
