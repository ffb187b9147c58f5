"""The subscriptions and callbacks that watch the runs of an engine.

`Watchable` is the part of `Engine` that applications call; `Watchers` is the engine's own list. It
forgets a subscription that nobody refers to any more.
"""

from __future__ import annotations

import asyncio
import weakref
from typing import TYPE_CHECKING, Any, Final, Protocol, overload

from asyncflow._support import log
from asyncflow._support.conditions import until
from asyncflow._support.event_loop import check_loop
from asyncflow.engine.arguments import check_callback, check_flow
from asyncflow.engine.callbacks import _AGAIN_SECONDS, Callback
from asyncflow.engine.subscription import Subscription
from asyncflow.errors import EngineClosedError, FlowError, NotFoundError
from asyncflow.events.selection import EventFilter, Wish
from asyncflow.events.types import Event

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncflow.engine.subscription import Channel
    from asyncflow.flow.spec import FlowSpec
    from asyncflow.store.interface import RunStore

_NO_FLOW: Final = ""
"""A name that no flow has: a subscription to a single run gets no other runs."""


class NamesRun(Protocol):
    """Anything that knows its run's pathspec, such as a `Run` or a `RunHandle`."""

    @property
    def pathspec(self) -> str:
        """`Flow/run`."""


class Watchers:
    """An engine's subscriptions and callbacks."""

    def __init__(self, buffer: int) -> None:
        self._buffer = buffer
        self._store: RunStore | None = None
        self._open = False
        self._channels: dict[str, Channel] = {}
        # Each with the name of the flow whose runs it receives; None for all flows.
        self._subscriptions: weakref.WeakKeyDictionary[Subscription[Any], str | None]
        self._subscriptions = weakref.WeakKeyDictionary()
        self._callbacks: dict[asyncio.Task[None], Callback] = {}

    def open(self, store: RunStore) -> None:
        """Start accepting subscriptions."""
        self._store, self._open = store, True
        self._loop = asyncio.get_running_loop()

    # --- called by the engine ---

    def begin(self, channel: Channel) -> None:
        """Add a new run, for each subscription whose filter takes its flow."""
        self._channels[channel.pathspec] = channel
        for subscription, flow in list(self._subscriptions.items()):
            if subscription.closed:
                del self._subscriptions[subscription]
            elif flow in {None, channel.flow}:
                subscription.follow(channel, start=channel.first)

    def forget(self, channel: Channel) -> None:
        """Remove a run that has ended; its channel is closed."""
        self._channels.pop(channel.pathspec, None)

    async def end(self, grace_seconds: float) -> None:
        """Deliver the remaining events once all runs have ended; callbacks get so many seconds."""
        self._open = False
        for subscription in list(self._subscriptions):
            subscription.finish()
        if self._callbacks:
            await self._all_done(grace_seconds)
        for called in self._callbacks.values():
            log.warning("a callback was cancelled with its engine", callback=called.name)
        while self._callbacks:
            for called in self._callbacks.values():
                called.abort()
            await self._all_done(_AGAIN_SECONDS)

    async def _all_done(self, seconds: float) -> None:
        tasks = list(self._callbacks)
        await until(lambda: all(task.done() for task in tasks), by=tasks, seconds=seconds)
        for task in tasks:
            if task.done():
                self._callbacks.pop(task, None)  # the call that should have done it may be lost

    # --- called by the application ---

    def subscribe(
        self,
        types: tuple[type[Wish], ...],
        flow: str | type[FlowSpec] | None,
        run: str | NamesRun | None,
        since: int | None,
    ) -> Subscription[Wish]:
        """Subscribe, as `Watchable.subscribe` says."""
        if not self._open or self._store is None:
            raise EngineClosedError
        check_loop(self._loop)
        name = None if flow is None else _name_of(flow)
        event_filter: EventFilter[Wish] = EventFilter(types, 0 if since is None else since)
        if run is not None:
            return self._subscribe_to(_pathspec_of(run, name, self._store), event_filter)
        subscription = Subscription(
            event_filter, loop=self._loop, buffer=self._buffer, follows=True
        )
        for channel in self._channels.values():
            if name in {None, channel.flow}:
                subscription.follow(channel, start=None if since is None else channel.first)
        self._subscriptions[subscription] = name
        return subscription

    def _subscribe_to(self, pathspec: str, event_filter: EventFilter[Wish]) -> Subscription[Wish]:
        channel = self._channels.get(pathspec)
        if channel is not None:
            subscription = Subscription(
                event_filter, loop=self._loop, buffer=self._buffer, raises_if_interrupted=True
            )
            subscription.follow(channel, start=channel.first)
            return subscription
        assert self._store is not None  # noqa: S101 - the engine is open
        from asyncflow.client import Run

        follower = Run(pathspec, store=self._store.location).follower(event_filter)
        subscription = Subscription(
            event_filter, loop=self._loop, buffer=self._buffer, tail=follower
        )
        self._subscriptions[subscription] = _NO_FLOW
        return subscription

    def call(self, subscription: Subscription[Any], callback: Callable[[Any], object]) -> Callback:
        """Call the callback for each event from now on."""
        if not self._open:
            raise EngineClosedError
        called = Callback(subscription, callback)
        self._callbacks[called.task] = called
        called.task.add_done_callback(self._on_ended)
        return called

    def _on_ended(self, task: asyncio.Task[None]) -> None:
        self._callbacks.pop(task, None)
        if not task.cancelled():
            task.exception()  # the event loop has raised the exception already


def _name_of(flow: str | type[FlowSpec]) -> str:
    if isinstance(flow, str) and flow.isidentifier():
        return flow
    if isinstance(flow, str):
        message = f"{flow!r} cannot be a flow's name: give the name of a class"
        raise FlowError(message)
    check_flow(flow)
    return flow.__name__


def _pathspec_of(run: str | NamesRun, flow: str | None, store: RunStore) -> str:
    """`Flow/run` of anything that names a run."""
    given = run if isinstance(run, str) else getattr(run, "pathspec", None)
    if not isinstance(given, str):
        message = f"{run!r} is not a run: give a handle, a `Run`, `Flow/run` or a run id"
        raise TypeError(message)
    head, slash, run_id = given.rpartition("/")
    if not slash:
        flows = store.flows() if flow is None else [flow]
        head = next((name for name in flows if run_id in store.runs(name)), flow or "")
        if not head:
            message = f"the store {store.location} has no run {run_id!r}"
            raise NotFoundError(message)
    if flow not in {None, head}:
        message = f"{given} is not a run of {flow}"
        raise ValueError(message)
    return f"{head}/{run_id}"


class Watchable:
    """The part of an engine through which its runs are watched."""

    _watchers: Watchers

    @overload
    def subscribe(
        self,
        *,
        flow: str | type[FlowSpec] | None = None,
        run: str | NamesRun | None = None,
        since: int | None = None,
    ) -> Subscription[Event]: ...
    @overload
    def subscribe(
        self,
        *types: type[Wish],
        flow: str | type[FlowSpec] | None = None,
        run: str | NamesRun | None = None,
        since: int | None = None,
    ) -> Subscription[Wish]: ...
    def subscribe(
        self,
        *types: type[Event],
        flow: str | type[FlowSpec] | None = None,
        run: str | NamesRun | None = None,
        since: int | None = None,
    ) -> Subscription[Any]:
        """Subscribe to events of these types, or of all: of the engine's runs, or of one run.

        Without `run`: of every run that starts from now on, and of current runs, from now on. With
        `since`, current runs also deliver past events, from the first whose `seq` is higher; 0
        gives all of them. `flow` leaves out the runs of other flows. The subscription ends with the
        engine.

        With `run` (a handle, a `Run`, `Flow/run`, or a run id): of that run, from its first event
        on, or from the first whose `seq` is higher than `since`. The run may have ended long ago,
        or belong to another process. The subscription ends with the run.

        Use it as `async with`. It receives events from this call on.

        Raises:
            EngineClosedError: The engine is not open.
            AsyncflowError: The engine was entered on another event loop, or in another thread.
            FlowError: `flow` is neither a flow class nor the name of one.
            TypeError: `types`, `run` or `since` has the wrong type.
            NotFoundError: The store has no such run.
            RunInterruptedError: When iterating: the run's engine is gone without recording an end.
        """
        return self._watchers.subscribe(types, flow, run, since)

    @overload
    def on(
        self,
        types: type[Wish],
        callback: Callable[[Wish], object],
        /,
        *,
        flow: str | type[FlowSpec] | None = None,
        run: str | NamesRun | None = None,
        since: int | None = None,
    ) -> Callback: ...
    @overload
    def on(
        self,
        types: tuple[type[Event], ...],
        callback: Callable[[Any], object],
        /,
        *,
        flow: str | type[FlowSpec] | None = None,
        run: str | NamesRun | None = None,
        since: int | None = None,
    ) -> Callback: ...
    def on(
        self,
        types: type[Event] | tuple[type[Event], ...],
        callback: Callable[[Any], object],
        /,
        *,
        flow: str | type[FlowSpec] | None = None,
        run: str | NamesRun | None = None,
        since: int | None = None,
    ) -> Callback:
        """Call `callback(event)` for events of this type, or of any of a tuple of types.

        The callback may be a coroutine function; an ordinary function is called on the event loop,
        so it must be short. It is called for one event at a time. An exception that it raises is
        logged with its traceback (to the logger `asyncflow`), and the calls go on; a `SystemExit`
        or `KeyboardInterrupt` ends the program, as in any asyncio task, and ends the calls; so does
        a cancellation of the callback's own task. `flow`, `run` and `since` select runs as for
        `subscribe`.

        Call `stop()` on the returned object to end the calls. When the engine closes, it waits at
        most `grace_seconds` until the callback has been called for everything that happened, and
        then cancels it.

        Raises:
            EngineClosedError: The engine is not open.
            AsyncflowError: The engine was entered on another event loop, or in another thread.
            FlowError: `flow` is neither a flow class nor the name of one.
            TypeError: `callback` cannot be called, or another argument has the wrong type.
            NotFoundError: The store has no such run.
        """
        check_callback(callback)
        chosen = types if isinstance(types, tuple) else (types,)
        if not chosen:
            message = "name at least one type of event; events.Event means all of them"
            raise TypeError(message)
        subscription = self._watchers.subscribe(chosen, flow, run, since)
        return self._watchers.call(subscription, callback)
