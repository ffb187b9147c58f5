"""What TAB gives in a shell."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

import asyncflow
from asyncflow import FlowSpec, step
from asyncflow.cli.command_table import Commands


class GreetFlow(FlowSpec):
    """Greet two."""

    @step
    def start(self):
        self.names = ["Ada", "Grace"]
        self.next(self.greet, foreach="names")

    @step
    def greet(self):
        self.greeting = f"Hello, {self.input}!"
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A folder with a store that has one run, and the run."""
    folder = tmp_path_factory.mktemp("completion")
    run = asyncflow.run_sync(GreetFlow, store=folder / ".asyncflow", workers=1)
    return folder, run


@pytest.fixture
def run(stored, monkeypatch):
    """The run, in whose folder the user is."""
    folder, run = stored
    monkeypatch.chdir(folder)
    monkeypatch.delenv("ASYNCFLOW_STORE", raising=False)
    return run


def completions(*words):
    """What the shell is told about the last of these words."""
    *before, last = words
    shell = ShellComplete(Commands(), {}, "asyncflow", "_ASYNCFLOW_COMPLETE")
    return [(each.type, each.value) for each in shell.get_completions(before, last)]


def plain(*words):
    """Likewise, without files."""
    return [value for kind, value in completions(*words) if kind == "plain"]


def test_a_flow_that_is_the_only_one_gives_its_runs_at_once(run):
    """A shell would put a space behind a single completion, so there are several."""
    assert plain("show", "Gr") == [f"GreetFlow/{run.id}/", "GreetFlow/latest/"]
    assert plain("show", "") == ["GreetFlow/", "latest/"]


def test_each_part_of_a_pathspec_gives_the_next(run):
    """A run gives its steps, a step its tasks, a task its artifacts."""
    assert plain("show", f"GreetFlow/{run.id}/") == [
        f"GreetFlow/{run.id}/{each}/" for each in ("start", "greet", "join", "end")
    ]
    assert plain("logs", "latest/greet/") == ["latest/greet/2", "latest/greet/3"]
    assert plain("dump", "latest/greet/2/g") == ["latest/greet/2/greeting"]


def test_a_run_is_found_by_the_beginning_of_its_id(run):
    """The flow may be left out, as it may in the command."""
    assert plain("cancel", run.id[:9]) == [run.id]
    assert plain("step", f"{run.id}/gr") == [f"{run.id}/greet/2", f"{run.id}/greet/3"]


@pytest.mark.parametrize(
    ("words", "whole"),
    [
        (["cancel", "latest"], ["latest"]),
        (["verify", "Greet"], ["GreetFlow/{id}", "GreetFlow/latest"]),
        (["rm", "Greet"], ["GreetFlow/{id}", "GreetFlow/latest"]),
        (["tag", "add", "--run-id", "lat"], ["latest"]),
        (["runs", "--flow", "Gr"], ["GreetFlow"]),
        (["runs", "Gr"], ["GreetFlow"]),
        (["resume", "x.py", "--origin-run-id", "lat"], ["latest"]),
    ],
    ids=" ".join,
)
def test_no_more_is_given_than_the_command_takes(run, words, whole):
    """Where a run is named, its steps do not come."""
    assert plain(*words) == [each.format(id=run.id) for each in whole]


def test_another_store_is_asked_if_it_is_named(run, tmp_path, monkeypatch):
    """`--store` before the pathspec counts."""
    store = Path(".asyncflow").absolute()
    monkeypatch.chdir(tmp_path)
    assert plain("show", "--store", str(store), "Gr")
    assert plain("show", "Gr") == []


@pytest.mark.parametrize(
    "text", ["Nobody/", "latest/nothing/", "latest/greet/9/", "///", "..", "1/2"]
)
def test_what_leads_nowhere_gives_nothing(run, text):
    """There is no error while somebody types."""
    assert plain("dump", text) == []


def test_a_name_that_a_shell_would_carry_out_is_left_out(run, tmp_path):
    """A store of somebody else may have a folder of any name."""
    (tmp_path / "flows" / "$(touch gone)").mkdir(parents=True)
    (tmp_path / "flows" / "Gone;ls").mkdir()
    (tmp_path / "flows" / "GoneFlow").mkdir()
    (tmp_path / "format").write_bytes(Path(".asyncflow/format").read_bytes())
    assert [each for each in plain("show", "--store", str(tmp_path), "") if "one" in each] == [
        "GoneFlow/"
    ]


def test_files_are_left_to_the_shell():
    """A flow's file is completed as any other."""
    assert completions("run", "he") == [("file", "he")]


def test_a_flow_gives_its_parameters(tmp_path):
    """Its file is imported; what it prints is not taken for a completion."""
    file = tmp_path / "words.py"
    file.write_text(
        "from asyncflow import FlowSpec, Parameter, step\nprint('plain,--loud')\n"
        "class WordsFlow(FlowSpec):\n    text = Parameter('text', default='')\n"
        "    @step(start=True, end=True)\n    def only(self):\n        pass\n"
    )
    assert plain("run", str(file), "--te") == ["--text"]
    file.write_text("1 / 0")
    assert plain("run", str(file), "--ta") == ["--tag"]


def test_bash_completes_a_command_line(run):
    """The script that bash is given does the rest."""
    folder = shlex.quote(str(Path(sys.executable).parent))
    script = f"""
        PATH={folder}:$PATH
        source /dev/stdin <<< "$(_ASYNCFLOW_COMPLETE=bash_source asyncflow)"
        COMP_WORDS=(asyncflow dump latest/greet/2/); COMP_CWORD=2
        _asyncflow_completion asyncflow
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", script], check=True, capture_output=True, text=True)
    assert "latest/greet/2/greeting" in done.stdout.split()
