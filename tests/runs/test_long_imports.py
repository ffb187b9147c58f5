"""The import of a flow's file hangs in a worker: there is a word of it, and an end."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

import asyncflow
from asyncflow import Engine, events
from asyncflow._support.settings import Settings
from asyncflow.errors import RunFailedError

FLOW = """
    import os
    import time
    from pathlib import Path

    from asyncflow import FlowSpec, retry, step

    if Path("hang").exists():
        Path("hang").unlink()
        time.sleep(600)  # here it stands
    if Path("fail").exists():
        raise LookupError("no such library")
    if Path("last").exists():
        Path("last").unlink()
        while Path("go on").stat().st_size == 0:
            time.sleep(0.01)


    class Importing(FlowSpec):
        @retry(times=1, seconds=0)
        @step
        ASYNCdef start(self):
            self.next(self.end)

        @step
        def end(self):
            pass
"""


def load(folder, kind=""):
    """The flow, as this process imports it: without any delay."""
    file = folder / "importing.py"
    file.write_text(textwrap.dedent(FLOW).replace("ASYNC", kind))
    return asyncflow.flow.loader.load_flow(f"{file}:Importing")


async def test_an_import_that_hangs_costs_an_attempt_and_tells_where_it_stood(
    store, tmp_path, monkeypatch, caplog
):
    """After a warning, and only when the time that is set for it is over."""
    monkeypatch.chdir(tmp_path)
    flow = load(tmp_path)
    Path("hang").touch()
    settings = Settings(store=store, workers=1, import_seconds=4.0)
    async with Engine(settings=settings) as engine:
        run = await engine.run(flow)
    assert "importing a flow takes long" in caplog.text
    [failed] = run.events(events.TaskFailed)
    assert failed.exception_type == "asyncflow.errors.TaskTimeoutError"
    assert "importing the flow took longer than 4 s (the setting import_seconds)" in failed.message
    assert "time.sleep(600)  # here it stands" in failed.traceback
    [first, _] = run["start"].task.attempts()
    assert "This worker has imported the flow for 2.0 s." in first.stderr


CLOCK = """
    import time
    from asyncflow import FlowSpec, step
    from asyncflow.flow import loader

    if loader._inside_worker:  # the import takes a thousand seconds, by the clock
        real = time.perf_counter
        time.perf_counter = lambda: real() + 1000.0

    class Timed(FlowSpec):
        @step
        ASYNC def start(self):
            self.next(self.end)

        @step
        def end(self):
            pass
"""


@pytest.mark.parametrize("kind", ["", "async"])
async def test_the_time_of_a_task_is_without_the_import_of_its_flow(
    store, tmp_path, monkeypatch, kind
):
    """Of the first task of a worker, which waits for that."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "timed.py"
    file.write_text(textwrap.dedent(CLOCK).replace("ASYNC def", f"{kind} def".strip()))
    async with Engine(store=store, workers=1) as engine:
        run = await engine.run(asyncflow.flow.loader.load_flow(f"{file}:Timed"))
    seconds = run["start"].task.seconds
    assert seconds is not None
    assert 0 <= seconds < 500


async def test_an_import_that_takes_long_and_ends_is_only_told_of(store, tmp_path, monkeypatch):
    """The task begins then, and has its own time."""
    monkeypatch.chdir(tmp_path)
    flow = load(tmp_path)
    Path("last").touch()
    Path("go on").touch()
    settings = Settings(store=store, workers=1, import_seconds=20.0)
    monkeypatch.setattr("asyncflow.scheduling.task_stopper._LONG_IMPORT_SECONDS", 0.05)
    async with Engine(settings=settings) as engine:
        handle = await engine.start(flow)
        async for event in handle.events(events.TaskLogged):
            assert "This worker has imported the flow for 0.1 s." in event.line
            break
        Path("go on").write_text("now")
        run = await handle
    assert not list(run.events(events.TaskFailed))


# --- beside async tasks of another run ----------------------------------------------------------


BESIDE = """
    import asyncio
    from pathlib import Path
    from asyncflow import FlowSpec, retry, step

    class Beside(FlowSpec):
        @retry(times=1, seconds=0)
        @step
        async def start(self):
            while not Path("end").exists():
                await asyncio.sleep(0.01)
            self.next(self.end)

        @step
        def end(self):
            pass
"""


def load_beside(folder):
    """A flow whose async task its worker has, until it may end."""
    file = folder / "beside.py"
    file.write_text(textwrap.dedent(BESIDE))
    return asyncflow.flow.loader.load_flow(f"{file}:Beside")


async def begun(handle):
    """Once its first task has."""
    async for _ in handle.events(events.TaskStarted):
        return


async def test_an_import_that_fails_beside_async_tasks_is_told_at_once(
    store, tmp_path, monkeypatch
):
    """It does not wait until these have ended."""
    monkeypatch.chdir(tmp_path)
    flow = load(tmp_path, "async ")
    Path("fail").touch()
    async with Engine(store=store, workers=1) as engine:
        beside = await engine.start(load_beside(tmp_path))
        await begun(beside)
        with pytest.raises(RunFailedError) as caught:
            await engine.run(flow)
        Path("end").touch()
        run = await beside
    assert caught.value.failure.message == "no such library"
    assert not list(run.events(events.TaskFailed))


async def test_an_import_that_hangs_beside_async_tasks_has_its_time_as_well(
    store, tmp_path, monkeypatch
):
    """The worker can do nothing else meanwhile, and is lost with it: one attempt of each."""
    monkeypatch.chdir(tmp_path)
    flow = load(tmp_path, "async ")
    settings = Settings(store=store, workers=1, import_seconds=4.0)
    async with Engine(settings=settings) as engine:
        beside = await engine.start(load_beside(tmp_path))
        await begun(beside)
        Path("hang").touch()
        importing = await engine.start(flow)
        async for _ in importing.events(events.TaskFailed):
            break
        Path("end").touch()
        run = await importing
        other = await beside
    [failed] = run.events(events.TaskFailed)
    assert "importing the flow took longer than 4 s" in failed.message
    [lost] = other.events(events.TaskFailed)
    assert "waited too long for its flow to be imported" in lost.message
