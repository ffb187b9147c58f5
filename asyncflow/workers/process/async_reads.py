"""What an async task reads in threads, so that the event loop of its worker goes on."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from asyncflow.errors import FlowError
from asyncflow.flow.join_inputs import InputView, lock_of, refs_of
from asyncflow.workers.process.artifact_threads import ended
from asyncflow.workers.process.step_forks import EndingForks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import Future

    from asyncflow.flow.spec import FlowSpec
    from asyncflow.values import ArtifactRef
    from asyncflow.workers.process.artifact_threads import OffLoop

_LOADED_AT_ONCE_BYTES: Final = 64 << 10  # a thread costs as much as unpickling that many bytes


class AsyncReads:
    """The reads of one async task that go on in threads: checks of bytes, and loads of values."""

    def __init__(self, off_loop: OffLoop) -> None:
        """Begin without any."""
        self._off_loop = off_loop
        self._checks: list[Future[None]] = []
        self._loads: set[Future[Any]] = set()  # awaited or not
        self._damage: BaseException | None = None

    def check_later(self, digest: bytes, check: Callable[[], None]) -> None:
        """Check bytes that were read, while the step goes on; see `checked`."""
        going_on = self._off_loop.check(digest, check)
        if going_on is not None:
            self._checks.append(going_on)

    async def checked(self) -> None:
        """Return once everything that the step has read is known to be undamaged.

        Raises:
            ArtifactCorruptError: Something is not what was stored.
        """
        if self._checks:
            try:
                await self._off_loop.checked(self._checks)
            except BaseException as error:  # damage, or a cancellation
                self._damage = error
                raise

    async def damage(self) -> BaseException | None:
        """The error that `checked` raises or has raised: no result of the task can be trusted."""
        with suppress(BaseException):
            await self.checked()
        return self._damage

    async def load(
        self, flow: FlowSpec, refs: Mapping[str, ArtifactRef], name: str, of: InputView | None
    ) -> Any:
        """See `current.load`; `flow` is the task's instance, and `refs` are its artifacts."""
        owner: FlowSpec | InputView = flow if of is None else of
        if not isinstance(of, InputView | None):
            raise FlowError(f"current.load takes one of the inputs of a join, not {of!r}")
        ref = (refs if of is None else refs_of(of)).get(name)
        takes_long = ref.size >= _LOADED_AT_ONCE_BYTES if ref else name == "input"
        if takes_long and name not in vars(owner):

            def read() -> None:
                with EndingForks():
                    getattr(owner, name)

            # Others that need the value wait here, and not in one of the few threads.
            async with lock_of(vars(owner), name, asyncio.Lock):
                if name not in vars(owner):
                    await self._off_loop.run(read, self._loads)
        return getattr(owner, name)

    async def loads_ended(self) -> None:
        """Return once none of the task's threads loads any more, even if cancelled meanwhile."""
        if self._loads:
            await ended(self._loads)

    def __repr__(self) -> str:
        return f"<AsyncReads {len(self._checks)} checks, {len(self._loads)} loads>"
