"""Runs a flow for a user at a terminal: starts and shows it, handles Ctrl-C, returns the status."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from asyncflow._quick_classes import NamedTuple
from asyncflow._support.settings import Settings
from asyncflow.cli.executor_options import executor_of
from asyncflow.cli.exit_status import FAILED, SIGNALLED, SUCCEEDED
from asyncflow.cli.final_report import (
    broken_data,
    broken_text,
    cancelled_text,
    cloned_text,
    failure_text,
    result_data,
)
from asyncflow.cli.nonblocking_output import NonblockingOutput
from asyncflow.cli.progress_view import (
    REDRAW_SECONDS,
    BarsView,
    LogView,
    QuietView,
    is_terminal,
    wants_colour,
)
from asyncflow.cli.run_summary import RunSummary
from asyncflow.cli.shown_warnings import warnings_shown_by
from asyncflow.cli.signals import interrupts, suspending
from asyncflow.cli.stdout_errors import cannot_write, encoding_of
from asyncflow.errors import AsyncflowError
from asyncflow.events.selection import EventFilter
from asyncflow.events.types import ENDINGS, RunCancelled, RunFailed
from asyncflow.store import open_store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from pathlib import Path

    from asyncflow.cli.final_report import Program
    from asyncflow.cli.json_log import JsonView
    from asyncflow.cli.progress_view import View
    from asyncflow.engine.engine import Engine
    from asyncflow.engine.run_handle import RunHandle
    from asyncflow.events.selection import Publication
    from asyncflow.events.types import Event

_STDOUT: Final = 1
_STDERR: Final = 2
_NAMED_TASKS: Final = 3
_BY_USER: Final = "SIGINT"  # other signals come with the end of a machine or of a service


LOGS: Final = ("bars", "prints", "full")
"""What of a run is shown: what tasks print and bars; what they print; or every task's log."""


class SessionOptions(NamedTuple):
    """The options of a command that runs a flow, without the flow's own parameters."""

    workers: int | None = None
    executor: str = "local"
    address: str | None = None
    max_running_tasks: int | None = None
    store: Path | str | None = None
    tags: tuple[str, ...] = ()
    run_id_file: Path | None = None
    runner_attribute_file: Path | None = None
    grace: float | None = None
    on_failure: str | None = None
    quiet: bool = False
    log: str | None = None
    """What of the log is shown, see `LOGS`; by default bars on a terminal, else all of it."""
    log_json: bool = False
    otel: bool = False
    as_json: bool = False
    clone_only: bool = False


def carry_through(
    start: Callable[[Engine], Awaitable[RunHandle]], options: SessionOptions, program: Program
) -> int:
    """Start a run, show it to its end, and return the exit status.

    Raises:
        AsyncflowError: The run could not be started, or its engine broke.
    """
    session = Session(options, program)
    gc.freeze()  # objects from before the run stay to the end
    gc.enable()
    return asyncio.run(session.run(start))


class Session:
    """One run in front of the user."""

    def __init__(self, options: SessionOptions, program: Program) -> None:
        self._options = options
        self._program = program
        self._errors = NonblockingOutput(_STDERR, encoding=encoding_of(sys.stderr))
        log = NonblockingOutput(_STDOUT, encoding=encoding_of(sys.stdout))
        self._log = self._errors if options.as_json or options.quiet else log
        self._summary: RunSummary | None = None
        self._view: View | JsonView = self._make_view()
        self._handle: RunHandle | None = None
        self._stopped_by = ""

    async def run(self, start: Callable[[Engine], Awaitable[RunHandle]]) -> int:
        """Run it, from the engine's start to its end; return the exit status."""
        stopping = interrupts(self._stop, self._say_how_to_go_on)
        with stopping as signals, warnings_shown_by(self._view):
            try:
                ending = await self._carry_through(start)
            except AsyncflowError as error:
                if self._handle is None:
                    raise
                return self._break_off(self._handle, error)
        return self._conclude(ending, signals.received)

    def _stop(self, name: str) -> None:
        """Cancel the run on the first signal; a run that is still starting, once it has started."""
        self._stopped_by = name
        waits = "" if self._handle is None else _whom_it_waits_for(self._handle.running_tasks)
        self._view.note(f"{name}: stopping the run{waits}; a second one kills it at once.\n")
        if self._handle is not None:
            self._handle.cancel(reason=name, by_shutdown=name != _BY_USER)

    def _say_how_to_go_on(self) -> None:
        """Handle the second signal: the process ends at once, so say how to go on."""
        if self._handle is not None:
            resume = self._program.resume(self._handle.run_id)
            self._errors.write_nowait(f"\nThe run is interrupted.\nTo go on:  {resume}\n")

    async def _carry_through(self, start: Callable[[Engine], Awaitable[RunHandle]]) -> Event:
        from asyncflow.engine.engine import Engine

        options = self._options
        settings = Settings.read(
            store=options.store,
            workers=options.workers,
            max_running_tasks=options.max_running_tasks,
            grace_seconds=options.grace,
            on_failure=options.on_failure,
        )
        async with Engine(settings=settings, **self._executor()) as engine:
            if options.otel:
                _trace(engine)
            with suspending(engine):
                self._handle = await start(engine)
                await self._tell_run_id(self._handle, settings)
                await self._tell_of_code(self._handle)
                if self._stopped_by:
                    self._handle.cancel(
                        reason=self._stopped_by, by_shutdown=self._stopped_by != _BY_USER
                    )
                return await self._show(self._handle)

    def _executor(self) -> dict[str, Any]:
        """Where tasks run; nowhere for a run that only takes over what another one has done."""
        options = self._options
        if options.clone_only:
            from asyncflow.engine.no_workers import NoWorkers

            return {"executor": NoWorkers}
        executor = executor_of(options.executor, options.address, options.workers)
        return {} if executor is None else {"executor": executor}

    async def _tell_of_code(self, handle: RunHandle) -> None:
        """Say which files are sent to other machines, and which are too large for that."""
        if self._options.executor == "local" or self._options.clone_only:
            return
        code = await asyncio.to_thread(lambda: handle.run.code)
        if code is None:
            return
        sizes = [len(text.encode()) for text in code.files.values()]
        files = "1 file" if len(sizes) == 1 else f"{len(sizes)} files"
        note = f"The flow's code goes with it: {files}, {sum(sizes) / 1024:.1f} KiB.\n"
        if code.left_out:
            left = ", ".join(code.left_out)
            note += f"These files are too large or could not be read, and do not: {left}.\n"
        self._view.note(note)

    async def _tell_run_id(self, handle: RunHandle, settings: Settings) -> None:
        """Write the files from which another program learns which run this is."""
        options = self._options
        if options.run_id_file is not None:
            await _write(options.run_id_file, handle.run_id)
        if options.runner_attribute_file is not None:
            import json

            from asyncflow.client.namespaces import metadata_of

            told = {
                "flow_name": handle.pathspec.partition("/")[0],
                "run_id": handle.run_id,
                "metadata": metadata_of(settings.store),
            }
            await _write(options.runner_attribute_file, json.dumps(told))

    async def _show(self, handle: RunHandle) -> Event:
        """Show the run to its end; return its last event."""
        view = self._view
        ending: Publication | None = None
        async with _ticking(view):
            async for batch in self._news(handle):
                ending = batch[-1]
                if self._summary is not None:
                    self._summary.count(batch)
                await view.show(batch)
        await view.close()
        await handle.ended()
        assert ending is not None  # noqa: S101 - a run has a first event
        last: EventFilter[Event] = EventFilter(ENDINGS)
        return last.pick([ending])[0]

    def _news(self, handle: RunHandle) -> AsyncIterator[Sequence[Publication]]:
        """All of the run's records, or only its last event if nothing else is shown."""
        if self._view.needs_all or self._summary is not None:
            return handle._news()  # noqa: SLF001 - parts of one package
        return handle.events(*ENDINGS).batches()

    def _make_view(self) -> View | JsonView:
        if self._options.log_json:
            from asyncflow.cli.json_log import JsonView

            return JsonView(self._log)
        descriptor = _STDERR if self._log is self._errors else _STDOUT
        colour = wants_colour(descriptor)
        if self._options.quiet:
            return QuietView(self._log, self._errors, colour=colour)
        terminal = is_terminal(descriptor)
        log = self._options.log or ("bars" if terminal and not self._options.as_json else "full")
        brief = log != "full"
        if brief and not self._options.as_json:
            self._summary = RunSummary()
        if log == "prints" or self._options.as_json or not terminal:
            return LogView(self._log, self._errors, colour=colour, terminal=terminal, brief=brief)
        return BarsView(self._log, colour=colour, brief=brief)

    def _conclude(self, ending: Event, signal_number: int) -> int:
        """Print the final report; return the exit status."""
        flow, run_id = ending.flow, ending.run_id
        status, repeat = SUCCEEDED, ""
        if self._summary is not None:
            self._log.write_nowait(self._summary.text(f"{flow}/{run_id}", self._program))
        if isinstance(ending, RunFailed):
            status, repeat = FAILED, self._step_to_repeat(ending)
            told = ending.failure, self._program, repeat, ending.item
            self._report(failure_text(flow, run_id, *told))
        elif isinstance(ending, RunCancelled) and self._options.clone_only and not signal_number:
            self._report(cloned_text(flow, run_id, self._program))
        elif isinstance(ending, RunCancelled):
            status = SIGNALLED + signal_number if signal_number else FAILED
            self._report(cancelled_text(flow, run_id, self._program))
        data = result_data(ending, self._program, repeat)
        if self._options.log_json and data["resume"]:
            self._view.note(f"To go on:  {data['resume']}")
        printed = self._print_json(data)
        self._tell_of_lost_log()
        return status if printed else status or FAILED

    def _report(self, text: str) -> None:
        """Tell how the run has ended, and how to go on; a log of JSON has told that."""
        if not self._options.log_json:
            self._errors.write_nowait(text)

    def _step_to_repeat(self, ending: RunFailed) -> str:
        from asyncflow.client.resume_hint import step_to_repeat

        with suppress(AsyncflowError):  # report the failure instead
            store = open_store(Settings.read(store=self._options.store).store)
            return step_to_repeat(store.run(ending.flow, ending.run_id), ending.failure)
        return ""

    def _break_off(self, handle: RunHandle, error: AsyncflowError) -> int:
        """Report that the engine could not finish the run, why, and how to go on."""
        flow, run_id = handle.pathspec.split("/")
        text = broken_text(flow, run_id, error, self._program)
        if self._options.log_json:
            self._view.note(text)
        self._report(text)
        self._print_json(broken_data(flow, run_id, error, self._program))
        self._tell_of_lost_log()
        return FAILED

    def _print_json(self, data: dict[str, Any]) -> bool:
        """Print the result if `--json` was given; return False if that failed."""
        if not self._options.as_json:
            return True
        import json

        output = NonblockingOutput(_STDOUT)
        output.write_nowait(f"{json.dumps(data)}\n")
        if output.error is None:
            return True
        where = self._program.show(data["pathspec"])
        said = cannot_write(output.error.strerror)
        self._errors.write_nowait(f"Error: {said}. The run's result:  {where}\n")
        return False

    def _tell_of_lost_log(self) -> None:
        """Report an incomplete log. The run went on: it is worth more than its log."""
        if self._log is not self._errors and self._log.error is not None:
            said = cannot_write(self._log.error.strerror)
            self._errors.write_nowait(f"Warning: {said}. The run's log is not complete there.\n")


def _trace(engine: Engine) -> None:
    """Make spans of the engine's runs.

    Raises:
        AsyncflowError: OpenTelemetry is not installed.
    """
    try:
        from asyncflow import otel
    except ImportError as error:
        raise AsyncflowError(str(error)) from error
    otel.instrument(engine)


def _whom_it_waits_for(tasks: list[str]) -> str:
    """The running tasks, in words; they may have a moment to end by themselves."""
    if not tasks:
        return ""
    more = f" and {len(tasks) - _NAMED_TASKS:,} more" if len(tasks) > _NAMED_TASKS else ""
    return f", waiting for {', '.join(tasks[:_NAMED_TASKS])}{more}"


async def _write(file: Path, text: str) -> None:
    import aiofiles

    written = file.with_name(f".{file.name}.{os.getpid()}")
    async with aiofiles.open(written, "w") as opened:
        await opened.write(text)
    written.replace(file)  # a program that waits for the file never sees half of it


@asynccontextmanager
async def _ticking(view: View | JsonView) -> AsyncIterator[None]:
    """Redraw the view's bars within the block."""
    if not isinstance(view, BarsView):
        yield
        return
    over = asyncio.Event()
    ticker = asyncio.create_task(_tick(view, over))  # a task of this block alone
    try:
        yield
    finally:
        over.set()
        await ticker


async def _tick(view: BarsView, over: asyncio.Event) -> None:
    while not over.is_set():
        try:
            async with asyncio.timeout(REDRAW_SECONDS):
                await over.wait()
        except TimeoutError:
            await view.tick()
