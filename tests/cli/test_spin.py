"""`spin` runs one task of an earlier run again, alone, in the process of the command."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from asyncflow import (
    Flow,
    FlowSpec,
    NBRunner,
    Parameter,
    Task,
    current,
    environment,
    retry,
    shared,
    step,
    user_step_decorator,
)
from asyncflow.client.namespaces import default_metadata, inspect_spin
from asyncflow.engine.one_task import find_task, prepare_task
from asyncflow.errors import ArtifactPickleError, NotFoundError
from tests.support.command_line import Said, asyncflow, here


@user_step_decorator
def marked(step_name, flow, inputs=None, attributes=None):
    """Keep the name of the step."""
    flow.mark = step_name
    yield


class Spun(FlowSpec):
    """Its last step fails; the tests have it mended."""

    factor = Parameter("factor", default=3)

    @shared
    def offset():
        yield 100

    @step
    def start(self):
        self.kind, self.rows = "known", [[1, 2], [3]]
        self.next(self.outer, foreach="rows")

    @step
    def outer(self):
        self.items = self.input
        self.next(self.inner, foreach="items")

    @step
    async def inner(self):
        self.product = self.input * self.factor
        self.where = self.foreach_stack(), self.index, current.task_id
        self.next(self.join_inner)

    @step
    def join_inner(self, inputs):
        self.products = [each.product for each in inputs]
        self.seen_items = [each.input for each in inputs]
        self.merge_artifacts(inputs, exclude=["product", "where"])
        self.next(self.join_outer)

    @step
    def join_outer(self, inputs):
        self.all = [each.products for each in inputs]
        self.merge_artifacts(inputs, include=["kind"])
        self.next({"known": self.known, "other": self.end}, condition="kind")

    @marked
    @environment(vars={"SPUN_HERE": "yes"})
    @step
    def known(self):
        self.seen = os.environ.get("SPUN_HERE")
        self.next(self.left, self.right)

    @step
    def left(self, *, offset):
        self.side = offset
        self.next(self.sides)

    @step
    def right(self):
        self.side = 2
        self.next(self.sides)

    @step
    def sides(self, inputs):
        self.both = inputs.left.side, inputs.right.side
        if hasattr(self, "extra"):
            self.unstorable = (each for each in self.extra)
        self.next(self.end)

    @retry(times=1)
    @step
    def end(self):
        print("the sides are", self.both)
        if "SPUN_MENDED" not in os.environ:
            raise ValueError("not mended")


@pytest.fixture(scope="module")
def failed(tmp_path_factory):
    """A run whose last step has failed."""
    store = tmp_path_factory.mktemp("failed") / "store"
    return NBRunner(Spun, show_output=False, store=store, workers=1).nbrun()


def again(run, pathspec, **artifacts):
    """Run a task again, and have it as an object."""
    single = prepare_task(Spun, find_task(Spun, pathspec, run.store))
    single.run(artifacts, lambda *_: None)
    return single


def everything_in(folder):
    """Every file with its size."""
    return {path: path.stat().st_size for path in Path(folder).rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("pathspec", "made", "after"),
    [
        ("start", {"rows": [[1, 2], [3]]}, ("outer",)),
        ("outer", {"items": [1, 2]}, ("inner",)),
        ("join_outer", {"all": [[3, 6], [9]]}, ("known",)),
        ("known", {"seen": "yes", "mark": "known"}, ("left", "right")),
        ("left", {"side": 100}, ("sides",)),
        ("sides", {"both": (100, 2)}, ("end",)),
    ],
)
def test_a_step_finds_the_inputs_that_it_had(failed, pathspec, made, after):
    """Those of a task, of a foreach and of branches; with its decorators and shared resources."""
    single = again(failed, pathspec)
    assert made.items() <= single.artifacts.items()
    assert single.next_steps == after


def test_each_task_of_a_foreach_has_its_own_item(failed):
    """An async one, too, within two of them, and the join of one."""
    for task in failed["inner"]:
        single = again(failed, task.pathspec)
        assert single.artifacts["product"] == task.data.product
        assert single.artifacts["where"] == task.data.where
    for task in failed["join_inner"]:
        spun = again(failed, task.pathspec).artifacts
        assert spun["products"] == task.data.products
        assert spun["seen_items"] == task.data.seen_items


def test_nothing_is_left_of_it(failed):
    """Neither a run nor a value."""
    before = everything_in(failed.store)
    again(failed, "start")
    again(failed, "inner")
    assert everything_in(failed.store) == before


def test_a_step_finds_other_values_on_request(failed):
    """Also a parameter. Which of the `inner` tasks is the first depends on the order of lists."""
    first = next(failed["inner"].tasks())
    assert again(failed, "inner", factor=10).artifacts["product"] == first.data.product // 3 * 10
    assert again(failed, "left", side=1).artifacts["side"] == 100


def test_what_could_not_be_stored_is_an_error(failed):
    """As in a run."""
    with pytest.raises(ArtifactPickleError, match="unstorable"):
        again(failed, "sides", extra=[1])


def test_the_task_that_failed_comes_first(failed, monkeypatch, capsys):
    """And it succeeds once what was wrong is mended."""
    with pytest.raises(ValueError, match="not mended"):
        again(failed, f"{failed.id}/end")
    monkeypatch.setenv("SPUN_MENDED", "1")
    assert again(failed, f"Spun/{failed.id}/end").next_steps == ()
    assert "the sides are (100, 2)" in capsys.readouterr().out


@pytest.mark.parametrize("pathspec", ["nowhere", "99/start", "{run}/start/99", "a/b/c/d", "/", ""])
def test_a_task_that_is_not_there_is_an_error(failed, pathspec):
    """Which says what is there."""
    with pytest.raises(NotFoundError):
        find_task(Spun, pathspec.format(run=failed.id), failed.store)


def test_the_code_is_that_of_now(failed):
    """Values are those of the run."""

    class Changed(Spun):
        @step
        def left(self, *, offset):
            self.side = offset + self.factor
            self.next(self.sides)

    Changed.__name__ = Changed.__qualname__ = "Spun"
    single = prepare_task(Changed, find_task(Changed, "left", failed.store))
    single.run({}, lambda *_: None)
    assert single.artifacts["side"] == 103


PROGRAM = """
from asyncflow import FlowSpec, Parameter, step

class Program(FlowSpec):
    number = Parameter("number", default=2)

    @step
    def start(self):
        self.names = ["a"]
        self.half = 6 / self.number
        self.next(self.end)

    @step
    def end(self):
        print("half is", self.half)
        print(1 / (self.half - 3))

if __name__ == "__main__":
    Program()
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """A folder with a flow whose run has failed."""
    folder = tmp_path_factory.mktemp("program")
    (folder / "program.py").write_text(PROGRAM)
    store = folder / ".asyncflow"
    assert asyncflow("run", folder / "program.py", "--store", store).status == 1
    return folder


def test_the_command_says_how_the_step_ended(program, monkeypatch):
    """By its exit status, too; stdout is the step's own. A task is kept on request."""
    monkeypatch.chdir(program)
    Path("other.py").write_text("ARTIFACTS = {'half': 4.0}")
    failed = asyncflow("spin", "program.py", "end")
    assert (failed.status, failed.stdout) == (1, "half is 3.0\n")
    assert "ZeroDivisionError" in failed.stderr
    assert 'program.py", line 16, in end' in failed.stderr
    kept_as = ["--persist", "--run-id-file", "id"]
    mended = asyncflow("spin", "program.py", "end", "--artifacts-module", "other.py", *kept_as)
    assert (mended.status, mended.stdout) == (0, "half is 4.0\n1.0\n")
    inspect_spin()
    try:
        kept = Task(f"Program/{Path('id').read_text()}/end/1")
        assert kept.successful
        assert kept.parent.parent.successful
        assert (kept.data.half, kept.data.names, kept.data.number) == (4.0, ["a"], 2)
        asyncflow("spin", "program.py", "end", *kept_as)
        lost = Task(f"Program/{Path('id').read_text()}/end/1")
        assert lost.exception is not None
        assert lost.exception.type == "ZeroDivisionError"
    finally:
        default_metadata()
    runs = asyncflow("runs")
    assert runs.stdout.count("Program/") == 1


@pytest.mark.parametrize("run", ["latest", "Program/latest", "{id}", "Program/{id}"])
def test_step_finds_the_flow_by_itself(program, monkeypatch, tmp_path, run):
    """By a short name of the run, and from another folder."""
    monkeypatch.chdir(tmp_path)
    store = program / ".asyncflow"
    run = run.format(id=Flow("Program", store=store).latest_run.id)
    done = asyncflow("step", f"{run}/end", "--artifact", "half=4.0", "--store", store)
    assert (done.status, done.stdout) == (0, "half is 4.0\n1.0\n"), done
    again = asyncflow("step", f"{run}/start/1", "--artifact", "number=3", "--store", store)
    assert again.status == 0
    assert "half, names" in again.stderr


def test_a_step_can_be_debugged_in_the_terminal(program, monkeypatch):
    """By `breakpoint()`, by `input()`, and where it has failed."""
    monkeypatch.chdir(program)
    said = typed("p self.half - 3\nq\n", "step", "latest/end", "--pdb")
    assert said.status == 1
    assert "(Pdb) 0.0\n" in said.stdout
    stopping = PROGRAM.replace("        self.half = ", "        breakpoint()\n        self.half = ")
    Path("asking.py").write_text(stopping)
    said = typed("p self.names\nc\n", "spin", "asking.py", "start", "--from", "latest")
    assert said.status == 0, said
    assert "(Pdb) ['a']\n" in said.stdout
    said = typed("q\n", "spin", "asking.py", "start", "--pdb")
    assert (said.status, said.stdout.count("(Pdb)")) == (1, 1)
    assert "You have left the debugger" in said.stderr
    Path("asking.py").write_text(PROGRAM.replace("6 /", "int(input()) /"))
    said = typed("8\n", "spin", "asking.py", "start", "--keep")
    assert said.status == 0, said
    assert "It is kept:  asyncflow dump Program/" in said.stderr


def typed(text, *arguments):
    """A command to which this is typed."""
    command = [sys.executable, "-m", "asyncflow", *map(str, arguments)]
    done = subprocess.run(
        command, check=False, input=text, capture_output=True, text=True, timeout=180
    )
    return Said(done.returncode, done.stdout, done.stderr)


def test_a_flow_whose_file_is_gone_is_named(tmp_path, monkeypatch):
    """With the command that takes another file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "program.py").write_text(PROGRAM)
    asyncflow("run", "program.py")
    (tmp_path / "program.py").rename("moved.py")
    gone = asyncflow("step", "latest/end")
    assert gone.status == 2
    assert re.search(r"asyncflow spin FILE end --from \d+", gone.stderr), gone


def test_a_step_that_wants_a_terminal_names_the_command_that_gives_it_one(tmp_path, monkeypatch):
    """And the command does what it says."""
    monkeypatch.chdir(tmp_path)
    Path("asking.py").write_text(PROGRAM.replace("6 /", "int(input()) /"))
    failed = asyncflow("run", "asking.py", "--store", "other")
    named = re.search(r"`asyncflow (step Program/\d+/start/1 --store .+/other'?)`", failed.stderr)
    assert named, failed
    assert typed("8\n", *shlex.split(named[1])).status == 0


@pytest.mark.parametrize("given", ["half", "=3", "a b=3"])
def test_an_artifact_needs_a_name_and_a_value(program, monkeypatch, given):
    """Which an error shows."""
    monkeypatch.chdir(program)
    done = here("step", "latest/end", "--artifact", given)
    assert (done.status, "--artifact takes NAME=VALUE" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    "pathspec", ["latest", "end", "latest/nowhere", "latest/end/99", "a/b/c/d/e"]
)
def test_step_refuses_what_names_no_task(program, monkeypatch, pathspec):
    """With the status of a wrong command line."""
    monkeypatch.chdir(program)
    assert here("step", pathspec).status == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "has no tasks of step 'nowhere'"),
        (["end", "--artifacts-module", "empty.py"], "has no dict ARTIFACTS"),
        (["end", "--artifacts-module", "broken.py"], "broken.py cannot be run"),
        (["end", "--artifacts-module", "gone.py"], "'gone.py' does not exist"),
    ],
)
def test_what_cannot_be_spun_is_a_usage_error(program, monkeypatch, arguments, said):
    """With exit status 2, before anything is run."""
    monkeypatch.chdir(program)
    Path("empty.py").write_text("")
    Path("broken.py").write_text("1 / 0")
    done = here("spin", "program.py", *arguments)
    assert done.status == 2
    assert said in done.stderr
    assert "half is" not in done.stdout
