"""`@exit_hook`: functions in processes of their own after a run has ended."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from asyncflow import Engine, FlowSpec, Parameter, exit_hook, step
from asyncflow.errors import FlowError, RunCancelledError, RunFailedError
from asyncflow.flow.graph_reader import read_graph
from tests.support.waiting import until


@pytest.fixture(scope="module")
async def engine(tmp_path_factory):
    """An open engine, for all tests of this file."""
    async with Engine(store=tmp_path_factory.mktemp("hooks"), workers=1) as opened:
        yield opened


def note(run, word):
    """Write a line to the file that the run's parameter names."""
    with Path(run.parameters.file).open("a", encoding="utf-8") as file:
        file.write(f"{word} {run.pathspec} {run.successful} {os.getpid()}\n")


def good(run):
    """Notes a success."""
    note(run, "good")


def bad(run):
    """Notes a failure."""
    note(run, "bad")


def broken():
    """Fails."""
    print("to the terminal")
    sys.exit(3)


def slow(run):
    """Takes too long."""
    note(run, "slow")
    time.sleep(60)


class _Base(FlowSpec):
    file = Parameter("file", default="")
    number = Parameter("number", default=1)

    @step
    def start(self):
        self.share = 1 // self.number
        self.next(self.end)

    @step
    def end(self):
        pass


@exit_hook(on_success=[broken, good, good], on_error=[bad], options={"a": 1})
class Hooked(_Base):
    pass


class Inherits(Hooked):
    pass


@exit_hook(on_success=[slow, good])
class Slow(_Base):
    pass


def words(file):
    """The lines that hooks have written."""
    return [line.split() for line in file.read_text(encoding="utf-8").splitlines()]


async def test_hooks_are_called_in_order_each_in_a_process_of_its_own(
    engine, tmp_path, caplog, capfd
):
    """One that fails is told of, and the others are called; all before whoever waits goes on."""
    run = await engine.run(Inherits, file=str(tmp_path / "said"))
    first, second = words(tmp_path / "said")
    assert first[:3] == second[:3] == ["good", run.pathspec, "True"]
    assert len({first[3], second[3], str(os.getpid())}) == 3
    assert "the exit hook broken of Inherits/" in caplog.text
    assert "to the terminal" in capfd.readouterr().err


async def test_after_a_failure_other_hooks_are_called_and_the_error_is_the_same(engine, tmp_path):
    """Also when the run is resumed and fails again."""
    with pytest.raises(RunFailedError, match="ZeroDivisionError"):
        await engine.run(Hooked, file=str(tmp_path / "said"), number=0)
    with pytest.raises(RunFailedError, match="ZeroDivisionError"):
        await engine.resume(Hooked)
    assert [each[0] for each in words(tmp_path / "said")] == ["bad", "bad"]


async def test_a_cancelled_run_has_no_hooks(engine, tmp_path):
    """Whoever cancelled it knows."""
    handle = await engine.start(Hooked, file=str(tmp_path / "said"))
    handle.cancel()
    with pytest.raises(RunCancelledError):
        await handle
    assert not (tmp_path / "said").exists()


async def test_closing_the_engine_ends_a_hook_that_takes_too_long(tmp_path, caplog):
    """After the grace it is killed, the next one is not called, and both are told of."""
    settings = {"ASYNCFLOW_GRACE_SECONDS": "0.2"}
    os.environ |= settings
    try:
        async with Engine(store=tmp_path / "store", workers=1) as engine:
            handle = await engine.start(Slow, file=str(tmp_path / "said"))
            async for _ in handle.events():
                pass
            await until((tmp_path / "said").exists)  # the hook has begun
    finally:
        del os.environ["ASYNCFLOW_GRACE_SECONDS"]
    ((word, _, _, pid),) = words(tmp_path / "said")
    assert word == "slow"
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)
    assert "exit hooks that are not called: ['good']" in caplog.text


def test_the_graph_names_the_functions():
    """As plain data; anything that cannot be called is refused."""
    assert read_graph(Hooked).options["exit_hook"] == {
        "on_success": ["broken", "good", "good"],
        "on_error": ["bad"],
        "options": {"a": 1},
    }
    with pytest.raises(FlowError, match="takes lists of functions, not 3"):
        exit_hook(on_success=[3])  # type: ignore[list-item]  # the mistake


FILE = """
from asyncflow import FlowSpec, exit_hook, step

def tell(run):
    print("told of", run.flow if hasattr(run, "flow") else run.parent.id, run.successful)

@exit_hook(on_success=[tell])
class Told(FlowSpec):
    @step
    def start(self):
        self.next(self.end)
    @step
    def end(self):
        pass

if __name__ == "__main__":
    Told()
"""


def test_a_script_has_its_hooks_called(tmp_path):
    """What they print goes to stderr, so that the result of --json stays whole."""
    (tmp_path / "flow.py").write_text(FILE, encoding="utf-8")
    command = [sys.executable, "flow.py", "run", "--json"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=100
    )
    assert "told of" in done.stderr
    assert "told of" not in done.stdout
