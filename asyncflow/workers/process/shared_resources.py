"""The shared resources of a worker: what `@shared` offers, opened by the first task that asks.

An async resource has an asyncio task of its own, its *host*, that enters and leaves it, because a
task group or a cancel scope of anyio in it must be left by the task that entered it. The host
begins in the context of the task that asked, so that output while it opens is that task's.

A resource belongs to a flow class, and resources are closed in the reverse order of their opening.
"""

from __future__ import annotations

import traceback
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any

from asyncflow._support.tracebacks import describe_exception
from asyncflow.errors import FlowError
from asyncflow.flow.current import leave_task
from asyncflow.flow.shared import shared_of
from asyncflow.workers.process import output_capture

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable

    Key = tuple[type, str]


class _Held:
    """An open resource."""

    __slots__ = ("closing", "context", "host", "manager", "value")

    def __init__(self, manager: Any) -> None:
        self.manager = manager
        self.value: object = None
        self.context = copy_context()
        """The context in which a `def` resource was opened, and is closed."""
        self.host: asyncio.Task[None] | None = None
        """For an async resource: the asyncio task that will close it."""
        self.closing: asyncio.Event | None = None
        """Set to make the host close it."""


class _PendingOpen:
    """A resource that is being opened, for all tasks that wait for it."""

    __slots__ = ("error", "host", "over", "traceback", "value")

    def __init__(self, over: asyncio.Event) -> None:
        self.over = over
        self.host: asyncio.Task[None]
        self.value: object = None
        self.error: BaseException | None = None
        self.traceback: Any = None

    async def wait(self) -> object:
        """The result, once there is one."""
        await self.over.wait()
        if self.error is not None:
            # Each raise lengthens a traceback: a thousand waiting tasks would bury the user's
            # frames.
            raise self.error.with_traceback(self.traceback)
        return self.value


class SharedResources:
    """Opens and closes the resources that the tasks of one worker share."""

    def __init__(self, complain: Callable[[str, str, str], object]) -> None:
        """`complain` gets flow, name and error of failures that no task has caused."""
        self._complain = complain
        self._held: dict[Key, _Held] = {}  # in the order of opening
        self._opening: dict[Key, _PendingOpen] = {}

    @property
    def needs_loop(self) -> bool:
        """Whether an async resource is open or being opened."""
        return bool(self._opening) or any(held.host for held in self._held.values())

    def has(self, cls: type) -> bool:
        """Whether a resource of this flow class is open or being opened."""
        return any(owner is cls for owner, _ in (*self._held, *self._opening))

    # --- for `def` steps ---

    def open(self, cls: type, names: Iterable[str]) -> dict[str, Any]:
        """Open what a `def` step asks for; return the values by name.

        Raises:
            FlowError: It needs `async with`.
            Exception: Whatever the user's code raises.
        """
        return {name: self._value(cls, name) for name in names}

    def _value(self, cls: type, name: str) -> object:
        held = self._held.get((cls, name))
        if held is None:
            thing = shared_of(cls)[name]
            held = self._enter(cls, name, thing(**self.open(cls, thing.asks)))
        elif not hasattr(type(held.manager), "__enter__"):
            raise _unusable(name, held.manager)
        return held.value

    def _enter(self, cls: type, name: str, manager: Any) -> _Held:
        if not hasattr(type(manager), "__enter__"):
            raise _unusable(name, manager)
        held = _Held(manager)
        held.value = held.context.run(manager.__enter__)
        held.context.run(_leave_task)
        self._held[cls, name] = held
        return held

    def close(self, cls: type | None = None) -> None:
        """Close `def` resources: those of one flow class, or all."""
        for key in self._latest_first(cls):
            self._leave(key)

    def _latest_first(self, cls: type | None) -> list[Key]:
        return [key for key in reversed(self._held) if cls in {None, key[0]}]

    def _leave(self, key: Key) -> None:
        held = self._held.pop(key)
        try:
            held.context.run(held.manager.__exit__, None, None, None)
        except BaseException as error:  # noqa: BLE001 - the user's code may raise anything
            self._tell(key, error)

    def _tell(self, key: Key, error: BaseException) -> None:
        cls, name = key
        described = describe_exception(error)
        frames = traceback.extract_tb(error.__traceback__)
        where = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
        self._complain(cls.__name__, name, f"{described.type}: {described.message}{where}")

    # --- for `async def` steps ---

    async def open_async(self, cls: type, names: Iterable[str]) -> dict[str, Any]:
        """Open what an async step asks for; steps that ask at once wait for one opening.

        Raises:
            FlowError: It is not a context manager.
            Exception: Whatever the user's code raises: for all that waited, once for each.

        Cancelled: the opening goes on, for the next task that asks.
        """
        return {name: await self._value_async((cls, name)) for name in names}

    async def _value_async(self, key: Key) -> object:
        held = self._held.get(key)
        if held is not None:
            return held.value
        opening = self._opening.get(key)
        if opening is None:
            opening = self._begin(key)
        return await opening.wait()

    def _begin(self, key: Key) -> _PendingOpen:
        import asyncio

        opening = self._opening[key] = _PendingOpen(asyncio.Event())
        name = f"shared {key[1]}"
        opening.host = asyncio.get_running_loop().create_task(self._host(key, opening), name=name)
        opening.host.add_done_callback(partial(self._on_host_ended, key, opening))
        return opening

    def _on_host_ended(self, key: Key, opening: _PendingOpen, host: asyncio.Task[None]) -> None:
        """End the waits for a host that was cancelled before its first line."""
        if host.cancelled() and not opening.over.is_set():
            message = f"shared {key[1]!r} was not opened: the task that should do so was cancelled"
            opening.error = FlowError(message)
            self._over(key, opening)

    async def _host(self, key: Key, opening: _PendingOpen) -> None:
        """Open a resource; keep it until it should be closed, and close it."""
        cls, name = key
        try:
            thing = shared_of(cls)[name]
            others = await self.open_async(cls, thing.asks)
            await self._live(key, opening, thing(**others))
        except BaseException as error:  # noqa: BLE001 - the user's code may raise anything
            if opening.over.is_set():  # it has been open
                self._held.pop(key, None)
                self._tell(key, error)
            else:
                opening.error, opening.traceback = error, error.__traceback__
                self._over(key, opening)

    async def _live(self, key: Key, opening: _PendingOpen, manager: Any) -> None:
        cls, name = key
        if not hasattr(type(manager), "__aenter__"):
            opening.value = self._enter(cls, name, manager).value
            self._over(key, opening)
            return
        import asyncio

        async with manager as value:
            held = self._held[key] = _Held(manager)
            held.value = value
            held.host, held.closing = opening.host, asyncio.Event()
            opening.value = value
            self._over(key, opening)
            _leave_task()
            await held.closing.wait()
        self._held.pop(key, None)

    def _over(self, key: Key, opening: _PendingOpen) -> None:
        del self._opening[key]
        opening.over.set()

    async def close_async(self, cls: type | None = None) -> None:
        """Close the resources of one flow class, or all, on the loop that opened them."""
        import asyncio

        for key, opening in list(self._opening.items()):
            if cls in {None, key[0]}:
                opening.host.cancel()
                await asyncio.wait([opening.host])
        for key in self._latest_first(cls):
            held = self._held.get(key)
            if held is None:  # it has failed meanwhile
                continue
            if held.host is None or held.closing is None:
                self._leave(key)
            else:
                held.closing.set()
                await asyncio.wait([held.host])

    def __repr__(self) -> str:
        return f"<Holder of {', '.join(name for _, name in self._held) or 'nothing'}>"


def _leave_task() -> None:
    """Detach this context and its output from the task."""
    output_capture.sink.set(None)
    leave_task()


def _unusable(name: str, manager: object) -> FlowError:
    kind = type(manager)
    if hasattr(kind, "__aenter__"):
        message = (
            f"shared {name!r} is a {kind.__qualname__}, which is opened with `async with`: only an "
            f"`async def` step can ask for it"
        )
    else:
        message = (
            f"shared {name!r} gave a {kind.__qualname__}, which is not a context "
            f"manager: yield it in its function instead of returning it"
        )
    return FlowError(message)
