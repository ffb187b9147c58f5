"""What `ExecutingRun.command_obj` is: the names of Metaflow's `CommandManager`, for one run.

A run has no process of its own here, so it has neither a command line nor files with its log.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from concurrent.futures import Future


class _Executing(Protocol):
    async def wait(self, timeout: float | None = None, stream: str | None = None) -> Any: ...  # noqa: ASYNC109 - Metaflow's name for it

    def stream_log(
        self, stream: str, position: int | None = None
    ) -> AsyncIterator[tuple[int, str]]: ...

    def cancel(self, reason: str = ...) -> None: ...


class RunCommand:
    """Waits for a run, prints its log, or stops it."""

    def __init__(self, executing: _Executing, ended: Future[str]) -> None:
        self._executing, self._ended = executing, ended

    def kill(self, termination_timeout: float = 2) -> None:
        """Cancel the run, and wait at most so many seconds for its end.

        Its steps have the engine's `grace_seconds` to end, even if that takes longer.
        """
        self._executing.cancel("killed by the program")
        try:
            self._ended.result(termination_timeout)
        except TimeoutError:
            return

    def sync_wait(self) -> None:
        """Wait for the run's end."""
        self._ended.result()

    async def wait(self, timeout: float | None = None, stream: str | None = None) -> None:  # noqa: ASYNC109 - Metaflow's name for it
        """Wait for the run's end, as `ExecutingRun.wait` does."""
        await self._executing.wait(timeout, stream)

    def stream_log(
        self, stream: str, position: int | None = None
    ) -> AsyncIterator[tuple[int, str]]:
        """The lines of `stdout` or `stderr`, as `ExecutingRun.stream_log` gives them."""
        return self._executing.stream_log(stream, position)

    async def emit_logs(
        self, stream: str = "stdout", custom_logger: Callable[[str], object] = print
    ) -> None:
        """Call the function with each line of `stdout` or `stderr`, until the run has ended."""
        async for _, line in self._executing.stream_log(stream):
            custom_logger(line)

    def cleanup(self) -> None:
        """Do nothing: all that there is of the run is in the store."""

    def __getattr__(self, name: str) -> Any:
        """Say of what only a process has where it is here."""
        there = _ELSEWHERE.get(name)
        message = f"{type(self).__name__!r} object has no attribute {name!r}"
        if there is not None:
            message = f"a run of a Runner has no process of its own, and no {name!r}: {there}"
        raise AttributeError(message, name=name, obj=self)


_ELSEWHERE = {
    "command": "its parameters are in `executing.run.data`",
    "log_files": "read `executing.stdout` and `executing.stderr`",
    "process": "use `executing.returncode`, `executing.status` and `executing.cancel()`",
}
