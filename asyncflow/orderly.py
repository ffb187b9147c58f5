"""Asyncio tasks that end in order, whoever cancels them.

A program that ends, by `sys.exit` say, cancels all tasks of its event loop, and waits for them. One
that has not begun then never begins, and any other is thrown out of whatever it waits for: nobody
would stop the workers, or tell the journal. What is to be done to its end is an `OrderlyTask`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from asyncflow.waiting import look_again_soon

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

Result = TypeVar("Result")


class OrderlyTask(asyncio.Task[Result]):
    """A task that is asked to end where others are cancelled.

    Nothing is thrown into it, so that no timeout and no cancel scope has an effect within it. What
    cancels a task by way of these has to be given a task of its own. Within it, whatever is awaited
    is a condition of `asyncflow.waiting`: a call that is lost leaves no other way to wake it.
    """

    def __init__(
        self,
        work: Coroutine[Any, Any, Result],
        *,
        name: str | None = None,
        ask: Callable[[], object] | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """`ask` is called when somebody cancels the task, which ends by itself if there is none."""
        self._ask = ask
        super().__init__(work, loop=loop or asyncio.get_running_loop(), name=name)

    def cancel(self, msg: Any | None = None) -> bool:  # noqa: ARG002 - as in the base class
        """Ask it to end."""
        if not self.done():
            if self._ask is not None:
                self._ask()
            look_again_soon(self.get_loop())  # what is lost is lost by what ends a program
        return False
