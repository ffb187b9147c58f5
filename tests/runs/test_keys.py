"""There is one run for each key of a flow, and each interrupted run is taken up once."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from asyncflow import Engine, Flow, FlowSpec, Parameter, step
from asyncflow.errors import (
    RunCancelledError,
    RunFailedError,
    RunInterruptedError,
    SettingsError,
)
from asyncflow.events import RunCancelled, RunSucceeded, TaskStarted
from asyncflow.store import open_store
from asyncflow.values import Status

KEY = "order-42"


class Order(FlowSpec):
    """Writes down that it was run."""

    folder = Parameter("folder", default="")
    fails = Parameter("fails", default=False)
    wait = Parameter("wait", default=0.0)

    @step
    def start(self):
        if self.folder:
            Path(self.folder, str(time.time_ns())).touch()
        self.next(self.end)

    @step
    def end(self):
        time.sleep(self.wait)
        if self.fails:
            raise ValueError("no such order")


PROGRAM = """
    import asyncio, sys
    from asyncflow import Engine
    from tests.runs.test_keys import Order

    async def main(store, folder):
        async with Engine(store=store, workers=1) as engine:
            handle = await engine.options(key="order-42").start(Order, folder=folder, wait=0.5)
            run = await handle
            print(run.pathspec, type(handle).__name__)

    if __name__ == "__main__":
        asyncio.run(main(*sys.argv[1:]))
"""


def test_twenty_processes_that_start_it_at_once_make_one_run(store, tmp_path):
    """Each gets a handle of it, and waits for its end."""
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))
    seen = tmp_path / "seen"
    seen.mkdir()
    processes = [
        subprocess.Popen(
            [sys.executable, program, store, seen],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        for _ in range(20)
    ]
    told = [process.communicate()[0].split() for process in processes]
    (run,) = Flow("Order", store=store)
    assert {pathspec for pathspec, _ in told} == {run.pathspec}
    assert sorted(kind for _, kind in told) == ["OtherRunHandle"] * 19 + ["RunHandle"]
    assert len(list(seen.iterdir())) == 1


async def test_a_finished_run_is_given_back(engine):
    """Its values of parameters count, not those of the second start."""
    start = engine.options(key=KEY).start
    first = await (await start(Order))
    handle = await start(Order, fails=True)
    assert (await handle).pathspec == first.pathspec
    assert handle.status is Status.SUCCEEDED
    assert [type(event) async for event in handle.events()][-1] is RunSucceeded
    batches = [batch async for batch in handle.batches()]
    assert [event for batch in batches for event in batch] == list(first.events())


async def test_a_run_of_the_same_engine_is_given_back_while_it_goes_on(engine):
    """Both handles are of one run."""
    keyed = engine.options(key="goes on")
    first, second = await keyed.start(Order, wait=0.3), await keyed.start(Order)
    assert first.pathspec == second.pathspec
    assert (await first).pathspec == (await second).pathspec


async def test_another_run_takes_over_the_key(engine):
    """If it is asked for with `again`."""
    keyed = engine.options(key="again")
    first = await keyed.run(Order)
    second = await keyed.options(again=True).run(Order)
    assert first.id != second.id
    assert (await keyed.start(Order)).run_id == second.id


async def test_each_flow_has_keys_of_its_own(engine):
    """A key names a run within its flow."""

    class Other(Order):
        """Another flow."""

    one, two = engine.options(key="same"), engine.options(key="same")
    assert (await one.run(Order)).id != (await two.run(Other)).id


async def test_a_failed_run_is_given_back_and_raises(engine):
    """As for the one who started it."""
    keyed = engine.options(key="failing")
    for _ in range(2):
        handle = await keyed.start(Order, fails=True)
        with pytest.raises(RunFailedError, match="no such order"):
            await handle


async def test_a_resumed_run_takes_over_the_key(engine):
    """Whoever starts it then gets the run that went on."""
    keyed = engine.options(key="to be resumed")
    handle = await keyed.start(Order, wait=60.0)
    async for event in handle.events(TaskStarted):
        if event.step == "end":
            break
    handle.cancel()
    with pytest.raises(RunCancelledError):
        await handle
    resumed = await engine.start_resumed(Order, origin=handle.run_id)
    found = await keyed.start(Order)
    assert found.run_id == resumed.run_id
    resumed.cancel()
    with pytest.raises(RunCancelledError):
        await found


async def test_a_handle_cancels_a_run_of_another_engine(engine):
    """Through its mailbox."""
    async with Engine(store=engine.settings.store, workers=1) as other:
        own = await other.options(key="of another").start(Order, wait=60.0)
        found = await engine.options(key="of another").start(Order)
        assert type(found).__name__ == "OtherRunHandle"
        assert found.status is Status.RUNNING
        found.cancel("not needed")
        with pytest.raises(RunCancelledError, match="not needed"):
            await found
        with pytest.raises(RunCancelledError):
            await own


async def test_a_run_that_was_removed_is_started_again(engine):
    """The key names nothing then."""
    keyed = engine.options(key="removed")
    run = await keyed.run(Order)
    store = open_store(engine.settings.store)
    store.run("Order", run.id).discard()
    assert (await keyed.run(Order)).id != run.id


async def test_a_process_that_died_before_the_run_began_leaves_none(engine):
    """The key names a run without a first event."""
    store = open_store(engine.settings.store, create=True)
    with store.holding_key("Order", "dead") as holder:
        holder.give_to("1")
    assert (await engine.options(key="dead").run(Order)).successful


@pytest.mark.parametrize("key", ["x" * 501, 42, "a\0b"])
def test_what_cannot_be_a_key_is_refused(key):
    """The error names it."""
    with pytest.raises(SettingsError, match="key must be a text"):
        Engine().options(key=key)


# --- runs that were interrupted -------------------------------------------------------------------

LEFT = """
    import asyncio, sys, time
    from asyncflow import Engine
    from tests.runs.test_keys import Order

    async def main(store):
        async with Engine(store=store, workers=2) as engine:
            for _ in range(2):
                handle = await engine.options(key=sys.argv[2] or None).start(Order, wait=60.0)
                async for event in handle.events():
                    if getattr(event, "step", "") == "end":
                        break
            print("all wait", flush=True)
            await asyncio.sleep(60)

    if __name__ == "__main__":
        asyncio.run(main(sys.argv[1]))
"""


@pytest.fixture
def leave(store, tmp_path):
    """Leaves runs whose engine is killed."""

    def left(key=""):
        program = tmp_path / "left.py"
        program.write_text(textwrap.dedent(LEFT))
        environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        command = [sys.executable, program, store, key]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ) as process:
            assert process.stdout.readline() == "all wait\n"
            os.kill(process.pid, signal.SIGKILL)
            process.stdout.close()
        while any(run.status is Status.RUNNING for run in Flow("Order", store=store)):
            time.sleep(0.01)
        return sorted(run.id for run in Flow("Order", store=store))

    return left


async def cancel_all(handles):
    """They would take a minute."""
    for handle in handles:
        handle.cancel()
        with pytest.raises(RunCancelledError):
            await handle


async def test_each_interrupted_run_is_taken_up_once(store, leave):
    """Two engines at once share them, and nothing is left for a third call."""
    left = await asyncio.to_thread(leave)
    async with Engine(store=store, workers=1) as one, Engine(store=store, workers=1) as two:
        shares = await asyncio.gather(one.resume_interrupted(Order), two.resume_interrupted(Order))
        assert await one.resume_interrupted(Order) == []
        handles = [handle for share in shares for handle in share]
        assert sorted(str(handle.run.origin_run_id) for handle in handles) == left
        await cancel_all(handles)
        assert await one.resume_interrupted(Order) == []  # cancelled runs have ended


async def test_what_a_closed_engine_has_stopped_is_taken_up_and_what_a_user_has_cancelled_is_not(
    store,
):
    """A service that is asked to end closes its engine; its next process goes on."""
    async with Engine(store=store, workers=1) as engine:
        stopped = await engine.options(key=KEY).start(Order, wait=60.0)
        cancelled = await engine.start(Order, wait=60.0)
        cancelled.cancel("enough")
        await cancelled.ended()
    (event,) = stopped.run.events(RunCancelled)
    assert (event.reason, event.by_shutdown) == ("its engine was closed", True)
    assert [run.id for run in Flow("Order", store=store).runs_to_resume()] == [stopped.run_id]
    async with Engine(store=store, workers=1) as engine:
        (resumed,) = await engine.resume_interrupted(Order)
        assert resumed.run.origin_run_id == stopped.run_id
        assert (await engine.options(key=KEY).start(Order)).run_id == resumed.run_id
        await cancel_all([resumed])
        assert await engine.resume_interrupted(Order) == []


async def test_an_interrupted_run_with_a_key_is_given_back_and_says_how_to_go_on(store, leave):
    """A new start of the key does not resume it; afterwards, the key is that of the new run."""
    (left,) = await asyncio.to_thread(leave, KEY)
    async with Engine(store=store, workers=1) as engine:
        handle = await engine.options(key=KEY).start(Order)
        assert handle.run_id == left
        with pytest.raises(RunInterruptedError, match="asyncflow resume"):
            await handle
        (resumed,) = await engine.resume_interrupted(Order)
        assert (await engine.options(key=KEY).start(Order)).run_id == resumed.run_id
        await cancel_all([resumed])


# --- at the command line --------------------------------------------------------------------------


def test_the_command_line_gives_back_the_run_of_a_key(store, tmp_path):
    """It shows the log of that run, and exits as if it had run it."""
    flow = tmp_path / "one.py"
    flow.write_text(
        "from asyncflow import FlowSpec, step\n\n"
        "class One(FlowSpec):\n"
        "    @step\n    def start(self):\n        print('once')\n        self.next(self.end)\n"
        "    @step\n    def end(self):\n        pass\n"
    )

    def run(*options):
        command = [sys.executable, "-m", "asyncflow", "run", flow, "--json", "--store", store]
        done = subprocess.run(
            [*command, *options], capture_output=True, text=True, timeout=60, check=True
        )
        assert "once" in done.stderr
        return json.loads(done.stdout)["run_id"]

    first = run("--key", KEY)
    assert run("--key", KEY) == first
    assert run("--key", KEY, "--again") != first
    for way in ("--quiet", "--log=bars", "--log-json"):
        shown = [sys.executable, "-m", "asyncflow", "run", flow, "--store", store, "--key", KEY]
        subprocess.run([*shown, way], capture_output=True, timeout=60, check=True)
