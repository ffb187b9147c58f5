"""Starts and resumes runs for the page: in an engine of the application, or by the command line."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, Final, Protocol

import anyio

from asyncflow.client.resume_hint import resume_command
from asyncflow.client.run_files import RunRecord
from asyncflow.page.answers import AskedWrongly, cut
from asyncflow.page.flow_pages import recorded_signature
from asyncflow.scheduling.resume_preview import plan_data, preview_resume

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable, Mapping, Sequence

    from asyncflow.engine.engine import Engine
    from asyncflow.engine.run_handle import RunHandle
    from asyncflow.flow.spec import FlowSpec
    from asyncflow.page.opened_runs import OpenedRuns

_BEGIN_SECONDS: Final = 10.0
_PLAN_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 0.05
_LEAST_WORDS: Final = 3  # asyncflow resume FILE:Flow


class Launcher(Protocol):
    """What the page needs to start runs."""

    def flows(self) -> list[str] | None:
        """The flows that can be started; None for all whose file is known."""

    def known(self, flow: str) -> type[FlowSpec] | None:
        """The class of a flow, if the page has it."""

    async def resume(self, origin: RunRecord, step: str | None) -> dict[str, Any]:
        """Resume a run; return the new one as `run`."""

    async def run(
        self, flow: str, parameters: Mapping[str, str], tags: Sequence[str]
    ) -> dict[str, Any]:
        """Start a run; return it as `run`."""

    async def plan(self, origin: RunRecord, step: str | None) -> list[dict[str, Any]]:
        """What a resume would do with the flow as it is now."""


class EngineLauncher:
    """Starts runs of some flows in the engine of the application that has the page."""

    def __init__(self, engine: Engine, flows: Iterable[type[FlowSpec]]) -> None:
        """Use an engine, which may be opened later."""
        self._engine = engine
        self._flows = {flow.__name__: flow for flow in flows}

    def flows(self) -> list[str] | None:
        """The flows that can be started."""
        return sorted(self._flows)

    def known(self, flow: str) -> type[FlowSpec] | None:
        """The class of a flow that can be started."""
        return self._flows.get(flow)

    def _flow(self, name: str) -> type[FlowSpec]:
        if name not in self._flows:
            raise AskedWrongly(409, f"this page cannot start runs of {name}")
        return self._flows[name]

    async def resume(self, origin: RunRecord, step: str | None) -> dict[str, Any]:
        """Resume a run."""
        flow = self._flow(origin.place.flow)
        return await self._begun(self._engine.start_resumed(flow, origin=origin.run_id, step=step))

    async def run(
        self, flow: str, parameters: Mapping[str, str], tags: Sequence[str]
    ) -> dict[str, Any]:
        """Start a run."""
        return await self._begun(self._engine.start(self._flow(flow), tags=tags, **parameters))

    async def _begun(self, starting: Awaitable[RunHandle]) -> dict[str, Any]:
        """The new run; none is started if the engine has no room for one soon."""
        with anyio.move_on_after(_BEGIN_SECONDS):
            return {"run": (await starting).pathspec}
        raise AskedWrongly(409, "as many runs go on as may: try again later")

    async def plan(self, origin: RunRecord, step: str | None) -> list[dict[str, Any]]:
        """What a resume would do."""
        flow, store = self._flow(origin.place.flow), str(self._engine.settings.store)
        find = partial(preview_resume, flow, store=store, origin=origin.run_id, step=step)
        return plan_data(await anyio.to_thread.run_sync(find))


class CommandLauncher:
    """Starts runs by `asyncflow run` and `asyncflow resume`, each in a process of its own.

    A run does not end with the page. The flow's file is the one that the journal names: it is run
    only when somebody asks for that.
    """

    def __init__(self, opened: OpenedRuns) -> None:
        """Start nothing yet."""
        self._opened = opened

    def flows(self) -> list[str] | None:
        """None: all flows whose file is known can be started."""
        return None

    def known(self, flow: str) -> type[FlowSpec] | None:  # noqa: ARG002 - as of an engine
        """None: no flow is loaded here."""
        return None

    async def resume(self, origin: RunRecord, step: str | None) -> dict[str, Any]:
        """Resume a run."""
        words = await anyio.to_thread.run_sync(lambda: _resume_words(origin, step))
        return await self._start(words, origin.place.flow)

    async def run(
        self, flow: str, parameters: Mapping[str, str], tags: Sequence[str]
    ) -> dict[str, Any]:
        """Start a run of the file of the flow's latest run."""

        def find() -> list[str]:
            latest = self._opened.record(flow, "latest")
            signature = recorded_signature(latest)
            known = latest.started.parameters if signature is None else signature["parameters"]
            unknown = [name for name in parameters if name not in known]
            if unknown:
                raise AskedWrongly(400, f"{flow} has no parameter {unknown[0]!r:.100}")
            file = _resume_words(latest, None)[2]
            given = [
                f"--{name}={part}"
                for name, value in parameters.items()
                for part in (value.split() if _is_multiple(known[name]) else [value])
            ]
            store = ["--store", self._opened.location]
            return ["asyncflow", "run", file, *given, *(f"--tag={tag}" for tag in tags), *store]

        return await self._start(await anyio.to_thread.run_sync(find), flow)

    async def plan(self, origin: RunRecord, step: str | None) -> list[dict[str, Any]]:
        """What a resume would do with the flow's file as it is now."""

        def find() -> Any:
            words = [*_resume_words(origin, step), "--plan", "--json"]
            done = subprocess.run(
                _program(words),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                timeout=_PLAN_SECONDS,
            )
            if done.returncode:
                raise AskedWrongly(409, _said(done.stderr), shlex.join(words))
            return json.loads(done.stdout)

        found: list[dict[str, Any]] = await anyio.to_thread.run_sync(find)
        return found

    async def _start(self, words: Sequence[str], flow: str) -> dict[str, Any]:
        return await anyio.to_thread.run_sync(lambda: _begin(words, flow))


def _is_multiple(declared: object) -> bool:
    """Whether an option is given once for each item."""
    return isinstance(declared, dict) and declared.get("multiple") is True


def _resume_words(origin: RunRecord, step: str | None) -> list[str]:
    """The words of the command that resumes a run."""
    command = resume_command(origin.stored, step or "")
    words = shlex.split(command) if command.startswith("asyncflow ") else []
    if len(words) < _LEAST_WORDS or words[2].startswith("FILE:"):
        raise AskedWrongly(409, "the file of this flow is not known here, or is gone", command)
    return words if "--store" in words else [*words, "--store", origin.place.store.location]


def _program(words: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "asyncflow", *words[1:]]


def _begin(words: Sequence[str], flow: str) -> dict[str, Any]:
    """Start the command, and wait until its run is in the journal."""
    command = shlex.join(words)
    with tempfile.TemporaryDirectory(prefix="asyncflow-page-") as folder:
        told, errors = Path(folder) / "run-id", Path(folder) / "errors"
        with errors.open("wb") as stderr:
            process = subprocess.Popen(
                _program([*words, "--quiet", "--run-id-file", str(told)]),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,  # Ctrl-C ends the page, and not the run
            )
        Thread(target=process.wait, daemon=True).start()  # so that it does not stay as a zombie
        until = time.monotonic() + _BEGIN_SECONDS
        while time.monotonic() < until:
            ended = process.poll() is not None
            run_id = told.read_text("utf-8").strip() if told.exists() else ""
            if run_id:
                return {"run": f"{flow}/{run_id}"}
            if ended:
                said = _said(errors.read_text("utf-8", "replace"))
                raise AskedWrongly(409, said or "the run has not begun", command)
            time.sleep(_LOOK_SECONDS)
    return {"run": None, "command": command}


def _said(errors: str) -> str:
    """The end of what a command has said, which has the reason."""
    return cut("\n".join(errors.strip().splitlines()[-20:]).removeprefix("Error: "), 4_000)
