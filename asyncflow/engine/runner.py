"""`Runner` and `NBRunner`: Metaflow's way to run flows from a program, over an engine."""

from __future__ import annotations

import asyncio
import os
import sys
import weakref
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from asyncflow._support.locations import absolute_location, is_url
from asyncflow._support.paths import absolute
from asyncflow._support.settings import Settings
from asyncflow.client.log_text import LogRenderer
from asyncflow.engine.arguments import check_flow
from asyncflow.engine.engine import Engine
from asyncflow.engine.engine_thread import EngineThread
from asyncflow.engine.executing_task import ExecutingTask
from asyncflow.engine.run_command import RunCommand
from asyncflow.errors import (
    AsyncflowError,
    EngineClosedError,
    ParameterError,
    RunInterruptedError,
)
from asyncflow.flow.added_decorators import decorated
from asyncflow.flow.config import files_by_default
from asyncflow.flow.delayed_values import has_configs
from asyncflow.flow.include_file import IncludeFile
from asyncflow.flow.loader import check_may_start, load_flow
from asyncflow.flow.parameters import parameters_of
from asyncflow.values import Status
from asyncflow.workers.program_environment import look_around

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping

    from asyncflow.client import Run
    from asyncflow.engine.run_handle import RunHandle
    from asyncflow.engine.starter import Starter
    from asyncflow.flow.spec import FlowSpec
    from asyncflow.workers.program_environment import ProgramEnvironment

    _Start = Callable[[Engine], Coroutine[Any, Any, RunHandle]]

Result = TypeVar("Result")

_OF_ENGINES: Final = frozenset({"store", "workers"})
_OF_FLOWS: Final = frozenset({"branch", "config", "config_value", "decospecs", "production"})
_WITHOUT_EFFECT: Final = frozenset(
    {
        "datastore",
        "datastore_root",
        "environment",
        "event_logger",
        "metadata",
        "monitor",
        "namespace",
        "package_suffixes",
        "pylint",
        "quiet",
    }
)
_OF_RUNS: Final = frozenset({"decospecs", "max_workers", "run_id_file", "tags"})
_OF_RUNS_WITHOUT_EFFECT: Final = frozenset(
    {"max_log_size", "max_num_splits", "namespace", "user_namespace"}
)
_STATUSES: Final = {Status.RUNNING: "running", Status.SUCCEEDED: "successful"}
_STREAMS: Final = ("stdout", "stderr")


class ExecutingRun:
    """A run that a `Runner` has started."""

    def __init__(self, runner: Runs, host: EngineThread, handle: RunHandle) -> None:
        self.runner = runner
        """The runner that has started it."""
        self._handle = handle
        self._run = handle.run
        self._ended = host.submit(_failure_of(handle))
        self.command_obj = RunCommand(self, self._ended)
        """Metaflow's names for what one does with a run besides."""

    @property
    def run(self) -> Run:
        """The client's view of the run; it can be used while the run goes on."""
        return self._run

    @property
    def status(self) -> str:
        """`running`, `successful` or `failed`; a run that was cancelled has failed."""
        return _STATUSES.get(self._status, "failed")

    @property
    def returncode(self) -> int | None:
        """0 if the run has succeeded, 1 if not, None while it goes on."""
        return {"running": None, "successful": 0}.get(self.status, 1)

    @property
    def _status(self) -> Status:
        return self._handle.status if self._ended.done() else Status.RUNNING

    @property
    def stdout(self) -> str:
        """The run's log until now, as `asyncflow run` prints it."""
        return LogRenderer().render(self._run.events())

    @property
    def stderr(self) -> str:
        """Why the run failed, and how to go on; empty while it goes on, and if it succeeded."""
        return self._ended.result() if self._ended.done() else ""

    async def wait(self, timeout: float | None = None, stream: str | None = None) -> Self:  # noqa: ASYNC109 - Metaflow's name for it
        """Wait for the run's end.

        Args:
            timeout: The most seconds to wait.
            stream: `stdout` or `stderr`, to print that meanwhile.

        Raises:
            TimeoutError: The time is over. The run goes on.
        """
        async with asyncio.timeout(timeout):
            if stream is not None:
                async for _, line in self.stream_log(stream):
                    print(line)  # noqa: T201 - as asked
            await asyncio.shield(asyncio.wrap_future(self._ended))
        return self

    async def stream_log(
        self, stream: str, position: int | None = None
    ) -> AsyncIterator[tuple[int, str]]:
        """The lines of `stdout` or `stderr` until the run's end, as they come.

        Each is a tuple of the position behind the line and the line without its end. `position`
        goes on behind a line that was had before.

        Raises:
            ValueError: There is no such stream.
        """
        if stream not in _STREAMS:
            message = f"there is no stream {stream!r}: it is {' or '.join(_STREAMS)}"
            raise ValueError(message)
        at = 0
        async for text in self._followed() if stream == "stdout" else self._failure():
            for line in text.splitlines(keepends=True):
                at += len(line.encode(errors="surrogateescape"))
                if at > (position or 0):
                    yield at, line.removesuffix("\n")

    async def _followed(self) -> AsyncIterator[str]:
        renderer = LogRenderer()
        try:
            async for event in self._run.events(follow=True):
                yield renderer.render([event])
        except RunInterruptedError:  # `stderr` says so
            return

    async def _failure(self) -> AsyncIterator[str]:
        yield await asyncio.shield(asyncio.wrap_future(self._ended))

    def cancel(self, reason: str = "cancelled by the program") -> None:
        """Stop the run. Harmless when it has ended."""
        self._handle.cancel(reason)

    def cleanup(self) -> None:
        """Do nothing: all that there is of the run is in the store."""

    def _show(self) -> None:
        """Print the log as it comes, and the failure, until the run has ended."""
        for text in self._shown():
            sys.stdout.write(text)
            sys.stdout.flush()
        sys.stderr.write(self._ended.result())

    def _shown(self) -> Iterator[str]:
        renderer = LogRenderer()
        try:
            for event in self._run.events(follow=True):
                text = renderer.render([event])
                if text:
                    yield text
        except RunInterruptedError:
            return

    def _wait(self, *, show: bool) -> Self:
        try:
            if show:
                self._show()
            self._ended.result()
        except BaseException:  # Ctrl-C
            self.cancel("the program has stopped waiting for it")
            self._ended.result()
            raise
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.cleanup()

    def __repr__(self) -> str:
        return f"<ExecutingRun {self._run.pathspec} {self.status}>"


async def _failure_of(handle: RunHandle) -> str:
    """Wait for a run's end; the text of its failure."""
    try:
        await handle
    except AsyncflowError as error:
        return f"{error}\n"
    return ""


class _RunnerEngine(Engine):
    """An engine whose runs have the variables and the working directory of a runner."""

    def __init__(self, settings: Settings, environ: Mapping[str, str], directory: str) -> None:
        super().__init__(settings=settings)
        self._variables, self._directory = environ, directory

    def _look_around(self, initial: Mapping[str, str]) -> ProgramEnvironment:
        return look_around(initial, self._environ, self._directory or None)

    @property
    def _environ(self) -> Mapping[str, str]:
        return {**os.environ, **self._variables}


class Runs:
    """What both runners have in common: the engine, and the methods that start runs."""

    def __init__(
        self,
        flow: type[FlowSpec],
        *,
        show_output: bool,
        env: Mapping[str, str] | None,
        cwd: str | os.PathLike[str] | None,
        options: Mapping[str, Any],
    ) -> None:
        check_may_start()
        _check(options, _OF_ENGINES | _OF_FLOWS | _WITHOUT_EFFECT, "an option of a runner")
        self._flow = decorated(flow, options.get("decospecs"))
        self._show_output = show_output and not options.get("quiet")
        self._env = dict(env or {})
        self._cwd = "" if cwd is None else str(absolute(cwd))
        self._options = {name: options[name] for name in _OF_ENGINES & options.keys()}
        self._placed = {name: options.get(name) for name in ("branch", "production")}
        files = dict(options.get("config") or {})
        self._configs: dict[str, Any]
        self._configs = {name: Path(self._cwd, path) for name, path in files.items()}
        self._configs |= dict(options.get("config_value") or {})
        if self._cwd and has_configs(flow):
            defaults = files_by_default(flow, self._environ, self._cwd)
            self._configs = defaults | self._configs
        self._host: EngineThread | None = None
        self._engine: Engine | None = None
        self._closing: Callable[[], object] | None = None
        self._closed = False

    # --- to the end ---

    def run(self, **options: Any) -> ExecutingRun:
        """Run the flow to its end. A run that fails raises nothing: see `status`.

        Keyword arguments are parameters of the flow, and `tags`, `max_workers`, `run_id_file` and
        `decospecs`, decorators to put on every step that lacks them, as in `["retry:times=2"]`.

        Raises:
            FlowError: There is no such decorator.
            ParameterError: A parameter is unknown, or cannot take its value.
            GraphError: The flow's steps form no graph that can be run.
            EngineClosedError: The runner was cleaned up.
        """
        return self._executed(self._start(options))._wait(show=self._show_output)  # noqa: SLF001 - both classes are one concept

    def resume(self, **options: Any) -> ExecutingRun:
        """Resume a run to its end; keyword arguments are `origin_run_id` and `step_to_rerun`, too.

        Raises:
            ResumeError: There is no such run, or the flow no longer has the steps that finished.
            EngineClosedError: The runner was cleaned up.
        """
        return self._executed(self._resume(options))._wait(show=self._show_output)  # noqa: SLF001 - both classes are one concept

    # --- on the caller's event loop ---

    async def async_run(self, **options: Any) -> ExecutingRun:
        """The same as `run`, but return once the run has started. Nothing is printed.

        Raises:
            ParameterError: A parameter is unknown, or cannot take its value.
            GraphError: The flow's steps form no graph that can be run.
            EngineClosedError: The runner was cleaned up.
        """
        return await self._executing(self._start(options))

    async def async_resume(self, **options: Any) -> ExecutingRun:
        """The same as `resume`, but return once the run has started. Nothing is printed.

        Raises:
            ResumeError: There is no such run, or the flow no longer has the steps that finished.
            EngineClosedError: The runner was cleaned up.
        """
        return await self._executing(self._resume(options))

    # --- life ---

    def cleanup(self) -> None:
        """Cancel what is running, and end the engine, its workers and its thread.

        Runs stay in the store, and what was started here can still be looked at.
        """
        self._closed = True
        if self._closing is not None:
            self._closing()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.cleanup()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await asyncio.to_thread(self.cleanup)  # which may take as long as the steps do

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._flow.__name__}>"

    # --- inside ---

    def _executed(self, start: _Start) -> ExecutingRun:
        host, engine = self._open()
        started = host.submit(start(engine))
        try:
            handle = started.result()
        except KeyboardInterrupt:
            started.cancel()
            raise
        return ExecutingRun(self, host, handle)

    async def _executing(self, start: _Start) -> ExecutingRun:
        host, engine = await asyncio.to_thread(self._open)
        handle = await asyncio.wrap_future(host.submit(start(engine)))
        return ExecutingRun(self, host, handle)

    def _open(self) -> tuple[EngineThread, Engine]:
        """The engine, which the first run opens."""
        self._check_open()
        if self._host is None or self._engine is None:
            settings = self._settings()
            variables, cwd = self._env, self._cwd
            host = EngineThread(lambda: _RunnerEngine(settings, variables, cwd))
            self._engine = host.open()
            self._host = host
            self._closing = weakref.finalize(self, host.close)
        return self._host, self._engine

    def _check_open(self) -> None:
        if self._closed:
            message = "this runner was cleaned up: make another one"
            raise EngineClosedError(message)

    def _settings(self) -> Settings:
        here = Path(self._cwd)
        settings = Settings.read(environ=self._environ, directory=here, **self._options)
        store = settings.store
        return replace(settings, store=store if is_url(store) else here / store)

    @property
    def _environ(self) -> Mapping[str, str]:
        return {**os.environ, **self._env}

    def _start(self, options: dict[str, Any]) -> _Start:
        flow, own = self._flow, {each.name for each in parameters_of(self._flow).values()}
        known = (_OF_RUNS | _OF_RUNS_WITHOUT_EFFECT) - own
        given = {name: value for name, value in options.items() if name not in known}
        given = {name: self._found(name, value) for name, value in given.items()}
        tags = options.get("tags") or ()
        if "decospecs" in known:
            flow = decorated(flow, options.get("decospecs"))

        def start(engine: Engine) -> Coroutine[Any, Any, RunHandle]:
            starter = self._starter(engine, options)
            return starter.start(flow, tags=tags, **{**self._configs, **given})

        return _noting(start, options.get("run_id_file"))

    def _resume(self, options: dict[str, Any]) -> _Start:
        known = _OF_RUNS | {"origin_run_id", "step_to_rerun"}
        _check(options, known | _OF_RUNS_WITHOUT_EFFECT, "an option of resume")
        flow = decorated(self._flow, options.get("decospecs"))
        tags = options.get("tags") or ()
        origin, step = options.get("origin_run_id"), options.get("step_to_rerun")

        def start(engine: Engine) -> Coroutine[Any, Any, RunHandle]:
            starter = self._starter(engine, options)
            return starter.start_resumed(flow, origin=origin, step=step, tags=tags)

        return _noting(start, options.get("run_id_file"))

    def _starter(self, engine: Engine, options: Mapping[str, Any]) -> Starter:
        most = options.get("max_workers")
        most = None if most is None else int(most)
        return engine.options(max_running_tasks=most, **self._placed)

    def _found(self, name: str, value: Any) -> Any:
        """A parameter's value; the path of a file is relative to the working directory of runs."""
        known = parameters_of(self._flow).values()
        is_path = any(isinstance(each, IncludeFile) and each.name == name for each in known)
        return Path(self._cwd, value) if is_path and self._cwd else value


def _check(options: Mapping[str, Any], known: frozenset[str] | set[str], what: str) -> None:
    for name in options:
        if name not in known:
            message = f"{name!r} is not {what}; there are {', '.join(sorted(known))}"
            raise ParameterError(message, parameter=name)


def _noting(start: _Start, file: str | os.PathLike[str] | None) -> _Start:
    """Start a run, and write its id to the file as soon as it is known."""
    if file is None:
        return start

    async def started(engine: Engine) -> RunHandle:
        handle = await start(engine)
        written = Path(f"{os.fspath(file)}.{os.getpid()}")
        written.write_text(handle.run_id, encoding="utf-8")  # noqa: ASYNC240 - no other task is on this loop
        written.replace(file)  # noqa: ASYNC240 - no other task is on this loop
        return handle

    return started


class Runner(Runs):
    """Runs the flow of a file from a program, as Metaflow's `Runner` does.

    The first run opens an engine on a thread of its own, and further runs use its warm workers. The
    engine ends with the `with` block or with `cleanup`. In an asyncio program, `Engine` is nearer.
    """

    def __init__(
        self,
        flow_file: str | os.PathLike[str],
        show_output: bool = True,  # noqa: FBT001, FBT002 - as in Metaflow
        profile: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        file_read_timeout: float = 3600,
        **options: Any,
    ) -> None:
        """Load the flow; nothing is started.

        Args:
            flow_file: The file that has the flow, or `FILE:Flow`.
            show_output: Whether `run` and `resume` print what `asyncflow run` prints.
            profile: Without effect.
            env: Variables that steps get, and that give parameters their values, beside those of
                this program.
            cwd: The working directory of steps, in which the store is looked for, too.
            file_read_timeout: Without effect.
            options: `store`, `workers`; `config` and `config_value`, the files and the values of
                configurations by name; `branch` and `production` of a `@project`; `decospecs`, as
                for `run`, for all runs. Metaflow's other options before the command have no effect.

        Raises:
            FlowError: There is no such file, no flow in it, or no such decorator.
            ParameterError: There is no such option.
        """
        del profile, file_read_timeout
        check_may_start()
        self._spec = os.path.abspath(flow_file)  # noqa: PTH100 - it may end with `:Flow`
        self._spun: list[ExecutingTask] = []
        super().__init__(
            load_flow(self._spec),
            show_output=show_output,
            env=env,
            cwd=cwd,
            options=options,
        )

    def spin(
        self,
        pathspec: str,
        *,
        persist: bool = False,
        artifacts_module: str | os.PathLike[str] | None = None,
        skip_decorators: bool = False,
    ) -> ExecutingTask:
        """Run one task of an earlier run again, alone, in a process of its own, to its end.

        The arguments are those of `asyncflow spin`. A step that fails raises nothing.

        Raises:
            NotFoundError: There is no such task.
            EngineClosedError: The runner was cleaned up.
        """
        spun = self._spin(pathspec, persist, artifacts_module, skip_decorators)
        return spun._finish(show=self._show_output)  # noqa: SLF001 - both classes are one concept

    async def async_spin(
        self,
        pathspec: str,
        *,
        persist: bool = False,
        artifacts_module: str | os.PathLike[str] | None = None,
        skip_decorators: bool = False,
    ) -> ExecutingTask:
        """The same as `spin`, but return once the process has started. Nothing is printed.

        Raises:
            NotFoundError: There is no such task.
            EngineClosedError: The runner was cleaned up.
        """
        given = pathspec, persist, artifacts_module, skip_decorators
        return await asyncio.to_thread(self._spin, *given)

    def cleanup(self) -> None:
        """Cancel what is running, and end the engine, its workers and its thread.

        Runs stay in the store, and what was started here can still be looked at.
        """
        for spun in self._spun:
            spun.cleanup()
        self._spun.clear()
        super().cleanup()

    def _spin(
        self,
        pathspec: str,
        persist: bool,  # noqa: FBT001 - internal
        artifacts_module: str | os.PathLike[str] | None,
        skip_decorators: bool,  # noqa: FBT001 - internal
    ) -> ExecutingTask:
        self._check_open()
        words = ["spin", self._spec, pathspec]
        if artifacts_module is not None:
            words += ["--artifacts-module", os.fspath(artifacts_module)]
        words += ["--skip-decorators"] if skip_decorators else []
        spun = ExecutingTask(
            self._flow,
            pathspec,
            absolute_location(self._settings().store),
            words=words,
            environ=self._environ,
            directory=self._cwd,
            persist=persist,
        )
        self._spun.append(spun)
        return spun


class NBRunner(Runs):
    """The same as `Runner` for a flow class, as in a notebook."""

    def __init__(
        self,
        flow: type[FlowSpec],
        show_output: bool = True,  # noqa: FBT001, FBT002 - as in Metaflow
        profile: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        base_dir: str | None = None,
        file_read_timeout: float = 3600,
        **options: Any,
    ) -> None:
        """Take the flow; nothing is started. The arguments are as for `Runner`.

        Raises:
            FlowError: It is not a flow class.
            ParameterError: There is no such option.
        """
        del profile, base_dir, file_read_timeout
        check_flow(flow)
        super().__init__(flow, show_output=show_output, env=env, cwd=cwd, options=options)

    def nbrun(self, **options: Any) -> Run:
        """Run the flow to its end, clean up, and return the run; as `run` otherwise."""
        with self:
            return self.run(**options).run

    def nbresume(self, **options: Any) -> Run:
        """Resume a run to its end, clean up, and return the new run; as `resume` otherwise."""
        with self:
            return self.resume(**options).run
