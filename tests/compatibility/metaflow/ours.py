"""What asyncflow answers: runs on one engine, and other commands in processes of their own."""

from __future__ import annotations

import os
import shlex
import sys
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import anyio.to_thread

from asyncflow import Flow, FlowSpec
from asyncflow.errors import AsyncflowError, NotFoundError, RunFailedError
from asyncflow.flow.loader import load_flow
from tests.compatibility.metaflow.cases import Case, class_name, flow_file, is_run
from tests.compatibility.metaflow.describe import describe
from tests.compatibility.metaflow.import_line import with_our_import
from tests.support.patient_process import run_patiently

if TYPE_CHECKING:
    from pathlib import Path

    from asyncflow import Engine, Run, RunHandle

_CPU_SECONDS = 100
_OF_COMMANDS = {"--with", "--origin-run-id", "--clone-only"}


async def answer(case: Case, name: str, folder: Path, engine: Engine) -> dict[str, Any]:
    """Run a case's commands in an empty folder; what they came to, and what the last run left.

    Raises:
        ImportError: asyncflow lacks a name that the flow imports.
    """
    file = folder / flow_file(name).name
    file.write_text(with_our_import(flow_file(name).read_text(encoding="utf-8")), encoding="utf-8")
    for beside, content in case.files.items():
        (folder / beside).write_text(content, encoding="utf-8")
    try:
        flow = load_flow(str(file))
    except AsyncflowError:
        return {"outcomes": [False] * len(case.commands)}
    outcomes, run = [], None
    for command in case.commands:
        words = shlex.split(command.replace("{run}", run.id if run else ""))
        before = _latest(name)
        outcomes.append(await _carry_out(flow, words, file, engine))
        if is_run(words):
            after = _latest(name)
            run = after if after is not None and after.id != getattr(before, "id", None) else None
    described = {"outcomes": outcomes}
    if run is not None:
        look = getattr(sys.modules[flow.__module__], "look", None)
        described |= await anyio.to_thread.run_sync(describe, run, look)
    return described


def _latest(name: str) -> Run | None:
    try:
        return Flow(class_name(name)).latest_run
    except NotFoundError:
        return None


async def _carry_out(flow: type[FlowSpec], words: list[str], file: Path, engine: Engine) -> bool:
    """Whether a command line has succeeded."""
    options = _options(words[1:]) if words[0] in {"run", "resume"} else None
    if options is None:
        return _process(file, words)
    tags = options.pop("tag", [])
    try:
        handle: RunHandle
        if words[0] == "run":
            parameters = {key: each if len(each) > 1 else each[0] for key, each in options.items()}
            handle = await engine.start(flow, tags=tags, **parameters)
        else:
            handle = await engine.start_resumed(flow, tags=tags, step=options.pop("", [None])[0])
        await handle
    except (RunFailedError, AsyncflowError):
        return False
    return True


def _options(words: list[str]) -> dict[str, list[str]] | None:
    """Options of a flow and tags, which need no process; None if there are others."""
    found: dict[str, list[str]] = defaultdict(list)
    rest = iter(words)
    for word in rest:
        if word in _OF_COMMANDS:
            return None
        found[word.removeprefix("--") if word.startswith("--") else ""].append(
            next(rest) if word.startswith("--") else word
        )
    return dict(found)


def _process(file: Path, words: list[str]) -> bool:
    command = [sys.executable, str(file), *words]
    done = run_patiently(command, cpu_seconds=_CPU_SECONDS, cwd=file.parent, env=dict(os.environ))
    return done.returncode == 0
