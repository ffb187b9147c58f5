"""Command lines that people have from Metaflow work here."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from asyncflow import Flow, get_metadata
from asyncflow._support.version import VERSION

LINES_FLOW = """
from asyncflow import FlowSpec, Parameter, current, retry, step

class Lines(FlowSpec):
    alpha = Parameter("alpha", default=1)
    namespace = Parameter("namespace", default="its own")

    @step
    def start(self):
        self.x = self.alpha * 2
        self.next(self.flaky)

    @step
    def flaky(self):
        if current.retry_count < self.alpha - 1:
            raise ValueError("not yet")
        self.next(self.own)

    @retry(times=0)
    @step
    def own(self):
        self.next(self.end)

    @step
    def end(self):
        print("x is", self.x, "in", self.namespace)

if __name__ == "__main__":
    Lines()
"""


@pytest.fixture
def lines(tmp_path, store, monkeypatch):
    """Gives the flow's file a command line; the process when it has ended."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flow.py").write_text(LINES_FLOW)

    def carry_out(line):
        run_id = (tmp_path / "id").read_text() if "RUN" in line else ""
        command = [sys.executable, "flow.py", *line.replace("RUN", run_id).split()]
        return subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)

    assert carry_out("run --quiet --run-id-file id").returncode == 0
    return carry_out


@pytest.mark.parametrize(
    ("line", "without_effect"),
    [
        (
            "--no-pylint --metadata=local --event-logger nullSidecarLogger --monitor=x run",
            "--event-logger, --monitor",
        ),
        (
            "--pylint --environment=local --datastore local --datastore-root here run",
            "--pylint, --datastore-root",
        ),
        (
            "--package-suffixes .csv run --max-num-splits 100",
            "--package-suffixes, --max-num-splits",
        ),
        ("dump RUN/start --include x --private", ""),
        ("logs RUN/end --both --timestamps", ""),
        ("logs show RUN/end", ""),
        ("resume --clone-only --origin-run-id RUN", ""),
        ("output-dot", ""),
        ("output-raw --json", ""),
        ("help", ""),
        ("version", ""),
    ],
)
def test_metaflows_command_lines_are_carried_out(lines, line, without_effect):
    """A line says which of their options do nothing here, unless that is what they ask for."""
    done = lines(line)
    said = f"Without effect here: {without_effect}.\n" if without_effect else ""
    assert (done.returncode, done.stderr) == (0, said)


def test_a_program_finds_the_run_by_the_file_that_it_has_named(lines, tmp_path):
    """`--runner-attribute-file`, as Metaflow's own `Runner` uses it."""
    assert lines("run --quiet --runner-attribute-file about.json").returncode == 0
    told = json.loads((tmp_path / "about.json").read_text())
    latest = Flow("Lines").latest_run
    assert latest is not None
    assert told == {"flow_name": "Lines", "run_id": latest.id, "metadata": get_metadata()}


def test_quiet_keeps_quiet_about_options_that_do_nothing(lines):
    """It is for programs."""
    assert "Without effect" not in lines("--datastore-root here run --quiet").stderr


def test_without_a_command_the_flow_is_checked(lines):
    """And the commands to go on with are told."""
    done = lines("")
    assert done.returncode == 0
    assert done.stdout.startswith("Lines can be run: 4 steps.\n")
    assert "python flow.py run" in done.stdout


def test_the_version_is_a_number(lines):
    """As in Metaflow; `asyncflow --version` has the name, too."""
    assert lines("version").stdout == f"{VERSION}\n"


def test_the_graph_is_had_as_data(lines):
    """`output-raw` is `graph --format json`."""
    data = json.loads(lines("output-raw").stdout)
    assert data == json.loads(lines("graph --format json").stdout)
    assert next(each["name"] for each in data["steps"]) == "start"


def test_a_flow_is_shown_with_its_docs_its_steps_and_its_runs(lines):
    """`show` without a pathspec."""
    said = lines("show").stdout
    assert "Step own\n    @retry\n    ?\n    => end\n" in said
    assert "Lines/" in said


def test_what_a_task_has_printed_is_not_scrubbed(lines):
    """The message says what there is instead."""
    done = lines("logs scrub RUN/end")
    assert done.returncode == 2
    assert "asyncflow rm" in done.stderr


def test_quiet_may_stand_before_the_command(lines):
    """As Metaflow has it."""
    assert lines("--quiet run").stdout == ""


@pytest.mark.parametrize("line", ["--with retry:times=2 run", "run --with retry:times=2"])
def test_with_puts_a_decorator_on_every_step_that_has_none_of_the_kind(lines, line):
    """Before the command and behind it; a step's own stays."""
    assert lines(f"{line} --alpha 3").returncode == 0
    run = Flow("Lines").latest_run
    assert run is not None
    assert [each.number for each in run["flaky"].task.attempts()] == [0, 1, 2]
    times = {step.name: step.options["retry"]["times"] for step in run.graph}
    assert times == {"start": 2, "flaky": 2, "own": 0, "end": 2}


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (
            "slurm",
            "--with slurm: there is no decorator 'slurm' of steps; it takes retry, catch, .*",
        ),
        ("retry:often=2", "--with retry:often=2: .*unexpected keyword argument 'often'"),
        ("retry:2", "--with retry:2 is not of the form NAME:ARGUMENT=VALUE"),
        ("retry:times=many", "@retry takes a whole number as `times`"),
    ],
)
def test_with_says_what_it_cannot_put_on_a_step(lines, wanted, said):
    """One line, and exit status 2."""
    done = lines(f"run --with {wanted}")
    assert done.returncode == 2
    assert re.match(f"Error: (.*: )?{said}", done.stderr)
    assert done.stderr.count("\n") == 1


def test_a_parameter_comes_before_an_option_that_only_metaflows_users_know(lines):
    """`--namespace` is the flow's own here."""
    assert "x is 2 in user:me" in lines("run --namespace user:me").stdout


def test_clone_only_runs_nothing(lines):
    """It takes over what has finished, and the new run can be resumed."""
    assert lines("run --alpha 2").returncode == 1
    done = lines("resume --clone-only")
    assert done.returncode == 0
    assert "has what had finished; nothing was run." in done.stderr
    cloned = Flow("Lines").latest_run
    assert cloned is not None
    assert [(each.id, each.task.successful) for each in cloned.steps()] == [("start", True)]
    assert "Task is starting" not in done.stdout
    assert cloned.status == "cancelled"
    again = lines("resume --clone-only start")
    assert again.returncode == 0
    assert list(Flow("Lines").latest_run or "?") == []
