"""The driver's end of the way to one agent: sends what is posted, and hears what the agent says.

It lives on the event loop of the executor's thread; `post` is for the engine's thread. Everything
that has to be read from a journal for an order is read here.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from asyncflow.errors import AgentGoneError, AsyncflowError, ClusterError
from asyncflow.workers.cluster.agent import START_SECONDS, machine_id
from asyncflow.workers.cluster.alarm import Alarm
from asyncflow.workers.cluster.batches import BATCH_BYTES, Inbox, Outbox, pack_message
from asyncflow.workers.cluster.shipped_records import KnownParts, RunRecords, offsets_in
from asyncflow.workers.messages import (
    CloseRun,
    MoreInputs,
    Opening,
    StartItems,
    StartTask,
    begun_by,
    pack_order,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asyncflow.workers.cluster.interface import Link
    from asyncflow.workers.cluster.shipped_records import Part
    from asyncflow.workers.messages import OrderMessage

LOST_SECONDS: Final = 14.0
"""How long there is no answer until a node counts as lost; its agent has given up before."""
_LOST_TRIES: Final = 3  # in a row at least: this process may have been stopped for a while
_TRY_SECONDS: Final = 5.0  # for the answer to one request; a poll takes a second by itself
_PROMPT_SECONDS: Final = 2.0  # in which a request is answered as a rule; a poll takes 1 s by itself
_LAST_SECONDS: Final = 1.0  # for an agent that ends to hear that its last words have come
_REST_SECONDS: Final = 0.2  # between failed requests
_HEARD_MESSAGES: Final = 1000  # that may wait for the engine before no more are fetched
_FULL_SECONDS: Final = 0.005
_RECORDS_BYTES: Final = 1 << 18  # of records in a message
_SMOOTHING: Final = 0.2  # of the latency
_FEW_RECORDS: Final = 8  # which are read in one turn of the loop

_Reading: TypeAlias = StartTask | StartItems | MoreInputs
"""An order for which something of the journal is read."""


class SharedRuns:
    """The journals of the runs whose tasks are at any node, each opened once."""

    def __init__(self) -> None:
        self._runs: dict[int, tuple[RunRecords, set[AgentConnection]]] = {}

    def open(self, opening: Opening, user: AgentConnection) -> RunRecords:
        """The journal of a run, until each of its users has called `close`."""
        if opening.run not in self._runs:
            self._runs[opening.run] = RunRecords(opening), set()
        records, users = self._runs[opening.run]
        users.add(user)
        return records

    def close(self, run: int, user: AgentConnection) -> None:
        """One of its users needs a run no more."""
        if run in self._runs:
            records, users = self._runs[run]
            users.discard(user)
            if not users:
                del self._runs[run]
                records.close()

    def __repr__(self) -> str:
        return f"<SharedRuns: {len(self._runs)}>"


class _RunThere:
    """A run that workers of the node have open."""

    def __init__(self, records: RunRecords) -> None:
        self.records, self.known = records, KnownParts()
        self.tokens: set[int] = set()  # of the workers that have it open


class AgentConnection:
    """Sends to one agent what was posted, and passes on what the agent says."""

    def __init__(
        self, link: Link, runs: SharedRuns, hear: Callable[[AgentConnection, list[Any]], int]
    ) -> None:
        """Do nothing yet.

        Args:
            link: The way to the agent.
            runs: The journals that orders are about.
            hear: Receives each message of the agent, and returns how many wait to be handled. The
                last one is `["lost", why]` or `["closed", why]`.
        """
        self.link: Final = link
        self._runs, self._hear = runs, hear
        self._loop = asyncio.get_running_loop()
        self._posted: deque[tuple[Any, ...]] = deque()
        self._news = Alarm()
        self._patience = inf  # in which what was posted will be taken; endless if nothing was
        self._inbox, self._outbox = Inbox(), Outbox()
        self._there: dict[int, _RunThere] = {}
        self._is_elsewhere = True  # on another machine than this process
        self._lost_seconds = START_SECONDS  # until its first answer: it may be slow to start
        self._pushing = self._polling = inf  # when the last requests were begun that may still wait
        self.latency = 0.0
        """How many seconds a message takes to be answered; of the last ones, the later the more."""
        self.taken = 0
        """How many of the posted messages the agent may have got."""

    # --- in the engine's thread -----------------------------------------------------------------

    def post(self, *message: Any, patience: float = 0.0) -> None:
        """Have a message sent within so many seconds, with all that was posted before.

        An order comes as it is: `"order", token, order`.
        """
        self._posted.append(message)
        if patience < self._patience:  # otherwise all that was posted will be taken by then
            self._patience = patience
            with suppress(RuntimeError):  # the loop is closed, and the executor with it
                self._loop.call_soon_threadsafe(self._news.ring_within, patience)

    @property
    def is_answering(self) -> bool:
        """Whether no request waits for longer than usual; what has been said comes in, too."""
        return self._loop.time() - min(self._pushing, self._polling) < _PROMPT_SECONDS

    @property
    def is_sending(self) -> bool:
        """Whether something that was posted is not known to have arrived."""
        return bool(self._posted or self._outbox)

    # --- in the executor's thread ---------------------------------------------------------------

    async def serve(self) -> None:
        """Send and hear, until the agent has ended or is lost."""
        sides = [asyncio.ensure_future(self._push_all()), asyncio.ensure_future(self._poll_all())]
        try:
            done, _ = await asyncio.wait(sides, return_when=asyncio.FIRST_COMPLETED)
            for side in done:
                try:
                    side.result()
                except asyncio.CancelledError:  # by the engine's client, and not by `serve`
                    self._hear(self, ["lost", "the way to it was closed"])
                    break
                except Exception as error:  # noqa: BLE001 - whatever the engine's client raises
                    self._hear(self, ["lost", _words(error)])
                    break
        finally:
            for side in sides:
                side.cancel()
            await asyncio.gather(*sides, return_exceptions=True)
            for run in list(self._there):
                self._leave(run)

    async def _poll_all(self) -> None:
        while True:
            self._polling = self._loop.time()
            batch = await self._answer(partial(self.link.poll, self._inbox.received))
            self._lost_seconds = LOST_SECONDS
            waiting = 0
            for message in self._inbox.open(batch):
                if message[0] == "up":
                    self._is_elsewhere = message[1]["machine"] != machine_id()
                waiting = self._hear(self, message)
                if message[0] == "closed":
                    with suppress(Exception):  # it ends at once if it knows that this was heard
                        async with asyncio.timeout(_LAST_SECONDS):
                            await self.link.poll(self._inbox.received)
                    return
            while waiting > _HEARD_MESSAGES:
                await asyncio.sleep(_FULL_SECONDS)
                waiting = self._hear(self, [])

    async def _push_all(self) -> None:
        while True:
            if not self._outbox:
                await self._news.wait()
            self._news.silence()
            self._patience = inf
            await self._take_posted()
            if self._posted:  # too much at once
                self._news.ring()
            batch = self._outbox.batch()
            if batch:
                began = self._pushing = self._loop.time()
                await self._answer(partial(self.link.push, batch))
                self._pushing = inf
                self._outbox.acknowledge(self._outbox.sent)
                self.latency += _SMOOTHING * (self._loop.time() - began - self.latency)

    async def _answer(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        """The answer to a request, which is repeated until there is one.

        Raises:
            AgentGoneError: The agent is gone.
            ClusterError: There was no answer for too long.
        """
        began, tries = self._loop.time(), 0
        while True:
            left = began + self._lost_seconds - self._loop.time()
            try:
                async with asyncio.timeout(max(_REST_SECONDS, min(_TRY_SECONDS, left))):
                    return await ask()
            except AgentGoneError:
                raise
            except Exception as error:
                tries += 1
                silent = self._loop.time() - began
                if tries >= _LOST_TRIES and silent >= self._lost_seconds:
                    message = f"it has not answered for {silent:.0f} s ({_words(error)})"
                    raise ClusterError(message) from error
                await asyncio.sleep(_REST_SECONDS)

    # --- what is to be sent ---

    async def _take_posted(self) -> None:
        while self._posted and self._outbox.bytes < BATCH_BYTES:
            message = self._posted.popleft()
            self.taken += 1
            match message:
                case ("order", token, order):
                    await self._take_order(token, order)
                case ("gone", token):  # the worker has exited: it has no run open any more
                    for run in list(self._there):
                        self._close_run(run, token)
                case _:
                    self._outbox.put(pack_message(*message))

    async def _take_order(self, token: int, order: OrderMessage) -> None:
        """Send an order, after what it needs of the journal.

        If that cannot be read, the attempt has failed.
        """
        try:
            if isinstance(order, StartTask | StartItems):
                order = self._opened(token, order)
                await self._send_records(_run_of(order), order)
            elif isinstance(order, MoreInputs) and order.key.run in self._there:
                await self._send_records(order.key.run, order)
        except (AsyncflowError, OSError) as error:
            if isinstance(order, MoreInputs):
                raise
            for key in begun_by(order):
                self._hear(self, ["unsent", token, key, _words(error)])
            return
        self._outbox.put(pack_message("order", token, pack_order(order)))
        if isinstance(order, CloseRun):
            self._close_run(order.run, token)

    def _opened(self, token: int, order: StartTask | StartItems) -> StartTask | StartItems:
        """The order, with its run open for the worker."""
        run = _run_of(order)
        if not order.opening:
            return order
        opening = Opening(*order.opening)
        if run not in self._there:
            self._there[run] = _RunThere(self._runs.open(opening, self))
        self._there[run].tokens.add(token)
        if not self._is_elsewhere:
            return order
        # Other machines see a file of a shared folder as it was when it was synced.
        return order._replace(opening=opening._replace(durable=True))

    async def _send_records(self, run: int, order: _Reading) -> None:
        """Send what the order needs of the journal and the node has not got."""
        there, inputs = self._there[run], b""
        if isinstance(order, StartTask) and order.inputs_at:
            name = order.inputs_at[0]
            inputs = there.records.inputs_file(name)
            self._outbox.put(pack_message("file", run, name, inputs))
        missing = there.known.missing(offsets_in(order, inputs))
        parts: set[Part] = set()
        for some in there.records.parts_at(missing, there.known.offsets):
            parts.update(some)
            if len(missing) > _FEW_RECORDS:
                await asyncio.sleep(0)
        message: list[int | bytes] = []
        size = 0
        for at, data in there.records.pieces(parts):
            message += at, data
            size += len(data)
            if size > _RECORDS_BYTES:
                self._outbox.put(pack_message("records", run, message))
                message, size = [], 0
                await asyncio.sleep(0)
        if message:
            self._outbox.put(pack_message("records", run, message))
        there.known.add(missing)
        there.known.add(offset for offset, _ in parts)

    def _close_run(self, run: int, token: int) -> None:
        """A worker has a run open no more. When none has, the node deletes its files."""
        there = self._there.get(run)
        if there is None or token not in there.tokens:
            return
        there.tokens.discard(token)
        if not there.tokens:
            self._outbox.put(pack_message("forget", run))
            self._leave(run)

    def _leave(self, run: int) -> None:
        del self._there[run]
        self._runs.close(run, self)

    def __repr__(self) -> str:
        return f"<AgentConnection to {self.link.node}: {len(self._posted)} posted>"


def _run_of(order: StartTask | StartItems) -> int:
    return order.run if isinstance(order, StartItems) else order.key.run


def _words(error: BaseException) -> str:
    """An error for people: its text, or at least its name."""
    return str(error) or type(error).__name__
