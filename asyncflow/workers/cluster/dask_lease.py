"""A lease on a Dask worker: a long-running task that holds one of its slots.

All leases of one driver in a Dask worker's process share an agent. It is reached through two
handlers of the Dask worker's RPC, which are there for as long as the process lives and say that an
agent is gone if it is.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from asyncflow.errors import AgentGoneError
from asyncflow.workers.cluster.agent_thread import AgentThread

if TYPE_CHECKING:
    from collections.abc import Mapping

PUSH: Final = "asyncflow_push"
"""The name of a handler: `driver, batch` to nothing."""
POLL: Final = "asyncflow_poll"
"""The name of a handler: `driver, received` to bytes."""
RELEASE: Final = "asyncflow_release"
"""The name of a handler: `driver, lease` to nothing."""
_GONE: Final = "gone"


class _Host:
    """The agent of one driver in this process, and the leases that it lives for."""

    def __init__(self) -> None:
        self.agent = AgentThread()
        self.leases: dict[str, asyncio.Event] = {}  # each set when it is given back


_hosts: Final[dict[str, _Host]] = {}
"""By driver."""


async def hold_lease(driver: str, lease: str, topic: str) -> None:
    """Hold the slot of the Dask task that this is, until the driver gives it back or is gone.

    An event under `topic` says that the agent can be reached, and where.
    """
    from distributed import get_worker

    worker = get_worker()
    worker.handlers.update(_HANDLERS)
    host = _hosts.get(driver)
    if host is None or host.agent.ended.done():
        host = _hosts[driver] = _Host()
    given_back = host.leases[lease] = asyncio.Event()
    facts = {"lease": lease, "address": worker.address, "name": str(worker.name)}
    worker.log_event(topic, facts)
    waiting: asyncio.Future[Any] = asyncio.ensure_future(given_back.wait())
    ended: asyncio.Future[Any] = asyncio.wrap_future(host.agent.ended)
    try:
        await asyncio.wait([waiting, ended], return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
        del host.leases[lease]
        if not host.leases:
            host.agent.end("its last lease was given back")
            await asyncio.wait([ended])
            if _hosts.get(driver) is host:
                del _hosts[driver]


def _agent_of(driver: str) -> AgentThread:
    host = _hosts.get(driver)
    if host is None:
        raise AgentGoneError("its lease has ended")
    return host.agent


async def _push(driver: str, batch: bytes) -> str:
    try:
        await _agent_of(driver).push(batch)
    except AgentGoneError:
        return _GONE
    return ""


async def _poll(driver: str, received: int) -> bytes | str:
    try:
        return await _agent_of(driver).poll(received)
    except AgentGoneError:
        return _GONE


async def _release(driver: str, lease: str) -> None:
    host = _hosts.get(driver)
    if host is not None and lease in host.leases:
        host.leases[lease].set()


_HANDLERS: Final[Mapping[str, Any]] = {PUSH: _push, POLL: _poll, RELEASE: _release}


def checked(answer: bytes | str | None) -> bytes:
    """The answer of a handler, at the driver.

    Raises:
        AgentGoneError: It says that the agent is gone.
    """
    if answer == _GONE:
        raise AgentGoneError("its lease has ended")
    return answer if isinstance(answer, bytes) else b""
