"""What a step reads is damaged while its run goes on: its failure names artifact and task."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from asyncflow import Engine, FlowSpec, Parameter, current, retry, step
from asyncflow.errors import RunFailedError
from asyncflow.scheduling import input_offsets, run_driver


def spoil(path: Path, at: int) -> None:
    """Change one byte of a file, though it be read-only."""
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(at)
        [byte] = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 1]))


def run_dir() -> Path:
    """Where the files of the run lie in which this step runs."""
    return Path(os.environ["ASYNCFLOW_STORE"], "flows", current.flow_name, current.run_id)


def spoil_store(what: str) -> None:
    """Damage what the steps of `Spoilt` have stored."""
    store = run_dir().parents[2]
    if what == "blob":
        [path] = [path for path in store.glob("blobs/??/*") if path.is_file()]
        spoil(path, 1000)
    elif what == "journal":  # in the record of `start`, which has the small value inline
        path = run_dir() / "journal"
        spoil(path, path.read_bytes().index(b"small value"))
    else:
        for path in run_dir().glob("w*.seg"):
            for at in (path.read_bytes().find(mark) for mark in (b"m" * 9000, b"item")):
                if at >= 0:
                    spoil(path, at)


class Spoilt(FlowSpec):
    """Its first attempt of `use` damages something, and its second comes to read it."""

    what = Parameter("what", default="")

    @step
    def start(self):
        self.small = "small value"
        self.middling = b"m" * 9_000
        self.large = b"L" * 300_000
        self.items = ["item" * 3000, "other"]
        self.next(self.use, foreach="items")

    @retry(times=1, minutes_between_retries=0)
    @step
    def use(self):
        if current.retry_count == 0 and self.index == 0:
            spoil_store(self.what)
            os._exit(3)
        if self.index == 0:
            name = {"blob": "large", "segment": "middling"}.get(self.what)
            self.read = len(getattr(self, name) if name else self.input)
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass


@pytest.mark.parametrize(
    ("what", "exception", "said"),
    [
        ("blob", "ArtifactCorruptError", ["'Spoilt/{run}/start/1/large' is damaged"]),
        (
            "segment",
            "ArtifactCorruptError",
            ["'Spoilt/{run}/start/1/middling' is damaged"],
        ),
        ("items", "ArtifactCorruptError", ["'Spoilt/{run}/start/1/items[0]' is damaged"]),
        (
            "journal",
            "JournalError",
            [
                "the journal of Spoilt/{run} cannot be read",
                "for the artifacts that Spoilt/{run}/use/2 inherits",
                "asyncflow verify Spoilt/{run}",
            ],
        ),
    ],
)
async def test_a_step_that_reads_what_is_damaged_fails_with_its_name(store, what, exception, said):
    """By run, task and artifact; where the task's record is damaged, by the task that has it."""
    async with Engine(store=store, workers=1) as engine:
        with pytest.raises(RunFailedError) as caught:
            await engine.run(Spoilt, what=what)
    failure = caught.value.failure
    assert failure.type.rpartition(".")[2] == exception
    for words in said:
        assert words.format(run=caught.value.run.id) in failure.message


class Joined(FlowSpec):
    """A join that takes an artifact over, and reads it after it was damaged."""

    @step
    def start(self):
        self.large = b"L" * 300_000
        self.next(self.left, self.right)

    @step
    def left(self):
        self.next(self.join)

    @step
    def right(self):
        self.next(self.join)

    @retry(times=1, minutes_between_retries=0)
    @step
    def join(self, inputs):
        if current.retry_count == 0:
            spoil_store("blob")
            os._exit(3)
        self.merge_artifacts(inputs)
        self.sizes = len(inputs.left.large), len(self.large)
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_a_join_names_the_artifact_of_the_input(store):
    """It is that of the task that leads to it."""
    async with Engine(store=store, workers=1) as engine:
        with pytest.raises(RunFailedError) as caught:
            await engine.run(Joined)
    [left] = caught.value.run["left"]
    assert f"artifact '{left.pathspec}/large' is damaged" in caught.value.failure.message


NEED = """
from pathlib import Path
from asyncflow import FlowSpec, Parameter, step

class Needy(FlowSpec):
    go_on = Parameter("go_on", default=False)

    @step
    def start(self):
        self.bytes = b"L" * 300_000
        self.next(self.left, self.right)

    @step
    def left(self):
        self.next(self.join)

    @step
    def right(self):
        self.next(self.join)

    @step
    def join(self, inputs):
        self.merge_artifacts(inputs)
        self.next(self.end)

    @step
    def end(self):
        if not Path("repaired").exists():
            raise ValueError("not yet")
        print(len(self.bytes))
"""


def asyncflow(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `asyncflow` to its end."""
    command = [sys.executable, "-m", "asyncflow", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)


@pytest.mark.parametrize("way", ["damaged", "gone"])
def test_the_command_that_goes_on_makes_anew_what_is_damaged(store, tmp_path, monkeypatch, way):
    """It names the step that made the artifact, which others have only handed on."""
    monkeypatch.chdir(tmp_path)
    Path("needy.py").write_text(NEED)
    asyncflow("run", "needy.py", "--workers=1")
    [blob] = [path for path in store.glob("blobs/??/*") if path.stat().st_size >= 300_000]
    spoil(blob, 1000) if way == "damaged" else blob.unlink()
    Path("repaired").touch()
    failed = asyncflow("resume", "needy.py", "--json", "--workers=1")
    assert failed.returncode == 1
    told = re.search(
        r"To go on: +asyncflow (resume needy.py start --origin-run-id .*)", failed.stderr
    )
    assert told is not None, failed.stderr
    assert json.loads(failed.stdout)["resume"] == f"asyncflow {told[1]}"
    repaired = asyncflow(*told[1].split(), "--workers=1")
    assert repaired.returncode == 0, repaired.stderr
    assert "] 300000\n" in repaired.stdout


async def test_an_error_of_a_run_names_that_step_too(store):
    """So does one for a join that reads what it has taken over from its inputs."""
    async with Engine(store=store, workers=1) as engine:
        for flow in (Spoilt, Joined):
            given = {"what": "blob"} if flow is Spoilt else {}
            with pytest.raises(RunFailedError) as caught:
                await engine.run(flow, **given)
            name, run_id = caught.value.run.path_components
            assert f"{name} start --origin-run-id {run_id}" in str(caught.value)
            for blob in store.glob("blobs/??/*"):
                blob.unlink()


async def test_of_a_parameter_no_step_is_named(store):
    """No step has made it, and none would make it anew."""
    async with Engine(store=store, workers=1) as engine:
        with pytest.raises(RunFailedError) as caught:
            await engine.run(Given)
    assert "parameters/large' is damaged" in str(caught.value)
    assert f"Given --origin-run-id {caught.value.run.id}" in str(caught.value)


class Given(FlowSpec):
    """Reads a parameter that is damaged."""

    large = Parameter("large", default="L" * 300_000)

    @retry(times=1, minutes_between_retries=0)
    @step
    def start(self):
        if current.retry_count == 0:
            spoil_store("blob")
            os._exit(3)
        self.size = len(self.large)
        self.next(self.end)

    @step
    def end(self):
        pass


class Wide(FlowSpec):
    """A join whose inputs are to be more than fit into an order."""

    @step
    def start(self):
        self.items = range(9)
        self.next(self.work, foreach="items")

    @step
    def work(self):
        self.next(self.join)

    @step
    def join(self, inputs):
        self.count = len(inputs)
        self.next(self.end)

    @step
    def end(self):
        pass


@pytest.mark.parametrize("cut", [False, True])
async def test_a_wide_join_never_joins_other_tasks_than_those_that_lead_to_it(
    store, monkeypatch, cut
):
    """The file that names them is changed, or cut, before the worker reads it."""

    def reached(point: str) -> None:
        if point == "inputs.spilled":
            [path] = store.glob("flows/Wide/*/inputs-*")
            data = path.read_bytes()
            path.write_bytes(data[:-8] if cut else data[:8] + data[:8] + data[16:])

    monkeypatch.setattr(input_offsets, "reached", reached)
    monkeypatch.setattr(run_driver, "MAX_INPUTS_IN_ORDER", 4)
    async with Engine(store=store, workers=2) as engine:
        with pytest.raises(RunFailedError) as caught:
            await engine.run(Wide)
    failure = caught.value.failure
    assert "is damaged: it is not what was written" in failure.message
    assert f"which tasks lead to {caught.value.run.pathspec}/join/{failure.task_id}" in (
        failure.message
    )
