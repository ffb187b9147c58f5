"""An executor that runs functions at once, in the caller's thread."""

from __future__ import annotations

from concurrent.futures import Executor as ThreadExecutor
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Result = TypeVar("Result")


class InlineExecutor(ThreadExecutor):
    """Runs each function at once, in the caller's thread, in place of a pool of threads."""

    def submit(self, fn: Callable[..., Result], /, *args: Any, **kwargs: Any) -> Future[Result]:
        """Call the function; the future that is returned is done."""
        future: Future[Result] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - the future carries it to its reader
            future.set_exception(error)
        return future
