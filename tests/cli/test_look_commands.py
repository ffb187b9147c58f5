"""The commands that look back, on two runs that were really run: one succeeded, one failed."""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from shutil import copytree
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest

from asyncflow import Run
from asyncflow.cli.command_table import invoke
from asyncflow.cli.dump_text import write_value
from asyncflow.cli.look_commands import find
from asyncflow.client.json_data import data_of
from asyncflow.events.types import to_microseconds
from asyncflow.flow.graph import Graph
from asyncflow.flow.loader import load_flow
from asyncflow.flow.node import Node
from asyncflow.store.artifacts import ArtifactReader
from tests.client.test_client import linear
from tests.support.written_runs import RunWriter

FLOW = """
from asyncflow import FlowSpec, Parameter, step
import sys

class LookedAtFlow(FlowSpec):
    bad = Parameter("bad", default=-1)

    @step
    def start(self):
        self.items = [3, 4]
        self.next(self.work, foreach="items")

    @step
    def work(self):
        print(f"working on {self.input}")
        print("a warning", file=sys.stderr, end="")
        if self.index == self.bad:
            raise ValueError("no good")
        self.twice = 2 * self.input
        self.odd = {1, 2}
        self.next(self.join)

    @step
    def join(self, inputs):
        self.total = sum(i.twice for i in inputs)
        self.next(self.end)

    @step
    def end(self):
        pass
"""


class Place(NamedTuple):
    """Where the runs are."""

    file: Path
    store: Path
    good: str
    failed: str


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A store with a run that succeeded and a run that failed."""
    folder = tmp_path_factory.mktemp("looking")
    file, store = folder / "looked_at_flow.py", folder / "store"
    file.write_text(FLOW)

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "asyncflow", "run", str(file), "--json", "--workers=1"]
        command += ["--store", str(store), "--tag", "nightly", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return str(json.loads(done.stdout)["pathspec"])

    return Place(file, store, run(), run("--bad", "1"))


@pytest.fixture
def look(place, capsys):
    """Carries out a command on that store; what it printed."""

    def carry_out(*arguments, status=0):
        assert invoke([*arguments, "--store", str(place.store)]) == status
        captured = capsys.readouterr()
        return captured.err if status else captured.out

    return carry_out


def as_json(text: str) -> Any:
    """What a program would read."""
    return json.loads(text)


# --- runs -------------------------------------------------------------------------------------


def test_runs_lists_newest_first(place, look) -> None:
    """`runs` lists each run with its status, its time and its tags, the newest first."""
    head, first, second = look("runs").splitlines()
    assert head.split() == ["RUN", "STATUS", "STARTED", "TOOK", "TAGS"]
    assert first.split()[:2] == [place.failed, "failed"]
    assert second.split()[:2] == [place.good, "succeeded"]
    assert second.split()[-1] == "nightly"


@pytest.mark.parametrize("name", ["../..", "..", "F/1"])
def test_runs_of_no_flow_name(look, name) -> None:
    """What cannot be a flow's name is wrong usage."""
    assert f"FLOW: {name!r} is not of the form Flow" in look("runs", name, status=2)


def test_runs_of_one_flow_as_json(place, look) -> None:
    """`runs FLOW --json` is an array of objects."""
    runs = as_json(look("runs", "LookedAtFlow", "--json"))
    assert [run["pathspec"] for run in runs] == [place.failed, place.good]
    assert runs[1]["status"] == "succeeded"
    assert runs[1]["tags"] == ["nightly"]


def test_runs_can_be_limited(look) -> None:
    """`--limit` and `--tag` choose among runs."""
    assert len(look("runs", "--limit", "1").splitlines()) == 2
    assert len(look("runs", "--limit", "0").splitlines()) == 3
    assert len(look("runs", "--status", "failed").splitlines()) == 2
    assert len(look("runs", "--status", "failed", "--status", "succeeded").splitlines()) == 3
    assert len(look("runs", "--status", "running").splitlines()) == 1
    assert len(look("runs", "--tag", "weekly").splitlines()) == 1


def test_runs_of_a_flow_that_is_not_there(look) -> None:
    """A flow that never ran is wrong usage, and the error names those that did."""
    assert "it has LookedAtFlow" in look("runs", "Nothing", status=2)


def test_store_that_is_not_there(tmp_path, capsys) -> None:
    """Looking makes no store: where there is none, the error says so."""
    assert invoke(["runs", "--store", str(tmp_path / "none")]) == 1
    assert "there is no store at" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


# --- show -------------------------------------------------------------------------------------


def test_show_flow(place, look) -> None:
    """`show Flow` lists its runs."""
    assert place.good in look("show", "LookedAtFlow")


def test_show_file(place, look, tmp_path) -> None:
    """`show FILE` shows the flow as it is written, and its runs; `--json` shows those alone."""
    file = tmp_path / "looked_at.py"
    file.write_text(FLOW)
    for named in (str(file), f"{file}:LookedAtFlow"):
        text = look("show", named)
        assert "Step work\n" in text
        assert place.good in text
    assert as_json(look("show", str(file), "--json")) == as_json(
        look("show", "LookedAtFlow", "--json")
    )


def test_show_a_file_that_is_not_there(look) -> None:
    """It is no run either; a path that is neither says what would do."""
    assert "there is no file nothing.py" in look("show", "nothing.py", status=2)
    assert "or FILE[:Flow]" in look("show", "..", status=2)


def test_show_run(place, look) -> None:
    """`show Flow/run` tells how it stands, its parameters and its steps."""
    text = look("show", place.good)
    assert re.search(r"status +succeeded", text)
    assert "  bad = -1" in text
    assert re.search(r"work +2 +2 succeeded", text)


def test_show_failed_run(place, look) -> None:
    """`show` of a run that failed has the step, the task and the user's traceback."""
    text = look("show", place.failed)
    assert "failed: step work, task 3, attempt 0" in text
    assert "ValueError: no good" in text


def test_show_run_as_json(place, look) -> None:
    """`show Flow/run --json` has the same as data."""
    data = as_json(look("show", place.failed, "--json"))
    assert data["parameters"] == {"bad": "1"}
    assert data["failure"]["pathspec"] == f"{place.failed}/work/3"
    assert data["steps"][1]["counts"] == {"succeeded": 1, "failed": 1}


def test_show_step(place, look) -> None:
    """`show Flow/run/step` lists the tasks; past the limit it says how many more there are."""
    assert len(look("show", f"{place.good}/work").splitlines()) == 6
    assert "… and 1 more" in look("show", f"{place.good}/work", "--limit", "1")


def test_show_task(place, look) -> None:
    """`show` of a task tells which task it follows and lists its artifacts with type and size."""
    text = look("show", f"{place.good}/work/2")
    assert re.search(rf"follows +{place.good}/start/1", text)
    assert re.search(r"twice +int +\d+", text)


def test_show_task_as_json(place, look) -> None:
    """`show` of a task as data has its artifacts."""
    data = as_json(look("show", f"{place.good}/work/2", "--json"))
    assert data["parents"] == [f"{place.good}/start/1"]
    assert {artifact["pathspec"].split("/")[-1] for artifact in data["artifacts"]} >= {"twice"}


def test_show_artifact(place, look) -> None:
    """`show` of an artifact tells type, size and hash, and loads nothing."""
    data = as_json(look("show", f"{place.good}/join/4/total", "--json"))
    assert data["type"] == "int"
    assert re.search(r"type +int", look("show", f"{place.good}/join/4/total"))


SHOWN_KEYS = {
    "": "pathspec flow run_id status created_at finished_at seconds tags resumed_as user"
    " origin_run_id parameters limits failure steps pid host so_far done total slowest waits",
    "/work": "pathspec task_count counts caught expected tasks",
    "/work/2": "pathspec status attempt path created_at finished_at seconds origin_pathspec"
    " item cpu_seconds peak_memory"
    " failure caught parents artifacts",
    "/join/4/total": "pathspec type size sha",
}


@pytest.mark.parametrize(("part", "keys"), SHOWN_KEYS.items())
def test_show_as_json_is_the_data_of_the_client(place, look, part, keys) -> None:
    """`show --json` prints the plain data of the client as it is, its keys in their old order."""
    data = data_of(find(f"{place.good}{part}", place.store))
    assert list(data) == keys.split()
    assert look("show", f"{place.good}{part}", "--json") == f"{json.dumps(data, indent=2)}\n"


@pytest.mark.parametrize("pathspec", ["a/b/c/d/e/f", "a//b", "", "../../etc", "F/..", "."])
def test_show_of_no_pathspec(look, pathspec) -> None:
    """What is no pathspec is wrong usage."""
    assert "is not of the form" in look("show", pathspec, status=2)


def test_show_of_what_is_not_there(place, look) -> None:
    """A step that never ran is wrong usage, and the error names those that did."""
    assert "start" in look("show", f"{place.good}/nowhere", status=2)


# --- logs -------------------------------------------------------------------------------------


def test_logs_of_a_task(place, capfd) -> None:
    """A task's output goes where it went: each stream to its own, as it was printed."""
    assert invoke(["logs", f"{place.good}/work/2", "--store", str(place.store)]) == 0
    assert capfd.readouterr() == ("working on 3\n", "a warning")


@pytest.mark.parametrize(
    ("stream", "text"), [("--stdout", "working on 3\n"), ("--stderr", "a warning")]
)
def test_logs_of_one_stream(place, capfd, stream, text) -> None:
    """One stream that is asked for goes to standard output."""
    assert invoke(["logs", f"{place.good}/work/2", stream, "--store", str(place.store)]) == 0
    assert capfd.readouterr() == (text, "")


@pytest.mark.parametrize("options", [[], ["--stdout"], ["--stderr"]])
def test_logs_of_a_task_have_the_bytes_that_it_printed(store, options) -> None:
    """Into a file or a pipe, whether they are text or not."""
    graph = Graph("F", [Node("start", ("end",)), Node("end")])
    writer = RunWriter(store, "F", "1", graph)
    task = writer.start("start")
    printed = {"stdout": b"\xff\x00 half \xe2\x82", "stderr": b"\xac\r\nred \x1b[31m\x80"}
    for number, data in enumerate(printed.values()):
        writer.log(task, data, stream=number)
    writer.succeed(task)
    writer.run("end")
    writer.finish()
    command = [sys.executable, "-m", "asyncflow", "logs", "F/1/start/1", *options]
    done = subprocess.run(command, capture_output=True, check=True, timeout=60)
    if options:
        assert (done.stdout, done.stderr) == (printed[options[0][2:]], b"")
    else:
        assert (done.stdout, done.stderr) == (printed["stdout"], printed["stderr"])


@pytest.mark.parametrize("more", [[], ["--follow"]])
def test_logs_of_a_task_that_failed_tell_why(place, capfd, more) -> None:
    """On stderr, below what it printed there; stdout has what it printed and nothing else."""
    assert invoke(["logs", f"{place.failed}/work/3", *more, "--store", str(place.store)]) == 0
    out, err = capfd.readouterr()
    assert out == "working on 4\n"
    assert err.startswith("a warning\nTraceback (most recent call last):\n")
    assert err.endswith("ValueError: no good\n")


def test_logs_of_a_run_are_its_log(place, look) -> None:
    """The log of a run reads as it did on the terminal."""
    lines = look("logs", place.good).splitlines()
    assert "Workflow starting (run-id" in lines[0]
    assert lines[-1].endswith(" Done!")
    assert any(line.endswith("] working on 4") for line in lines)


def test_logs_of_a_step(place, look) -> None:
    """The log of a step has the lines of its tasks and of no other."""
    lines = look("logs", f"{place.good}/work").splitlines()
    assert all("/work/" in line for line in lines)
    assert len(look("logs", f"{place.good}/work", "--stderr").splitlines()) == 2


# --- dump -------------------------------------------------------------------------------------


def test_dump_of_an_artifact(place, look) -> None:
    """`dump` of an artifact is its value as Python writes it."""
    assert look("dump", f"{place.good}/join/4/total") == "14\n"


def test_dump_of_a_task(place, look) -> None:
    """`dump` of a task has a line for each artifact."""
    text = look("dump", f"{place.good}/work/2")
    assert text.startswith(f"# {place.good}/work/2\n")
    assert "\ntwice = 6\n" in text


def test_dump_of_a_step(place, look) -> None:
    """`dump` of a step has every task."""
    data = as_json(look("dump", f"{place.good}/work", "--json"))
    assert [data[f"{place.good}/work/{task}"]["twice"] for task in (2, 3)] == [6, 8]


def test_dump_of_a_run(place, look) -> None:
    """`dump` of a run has the artifacts of its end."""
    assert as_json(look("dump", place.good, "--json"))["bad"] == -1


def test_dump_as_json_says_what_json_cannot(place, look) -> None:
    """A value that JSON has no word for becomes an object with its type and its repr."""
    data = as_json(look("dump", f"{place.good}/work/2/odd", "--json"))
    assert data == {"type": "builtins.set", "repr": "{1, 2}"}


LOSING_FLOW = """
from asyncflow import FlowSpec, step

class Shy:
    def __repr__(self):
        raise OSError("not today")

class LosingFlow(FlowSpec):
    @step
    def start(self):
        self.first, self.lost, self.shy, self.last = 1, bytes(1 << 20), Shy(), 4
        self.next(self.end)

    @step
    def end(self):
        pass
"""


@pytest.fixture(scope="module")
def losing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a run of which one value is lost, and one cannot be shown."""
    folder = tmp_path_factory.mktemp("losing")
    file, store = folder / "losing_flow.py", folder / "store"
    file.write_text(LOSING_FLOW)
    command = [sys.executable, "-m", "asyncflow", "run", str(file), "--store", str(store)]
    subprocess.run(command, capture_output=True, check=True)
    for blob in (store / "blobs").rglob("*"):
        if blob.is_file() and blob.stat().st_size >= 1 << 20:
            blob.unlink()
    return store


def test_an_interrupted_run_is_shown_as_what_it_was_resumed_as(tmp_path, capsys) -> None:
    """By its last resumption; one that nobody has resumed is interrupted."""
    graph = Graph("F", [Node("start", ("end",)), Node("end")])
    for run_id, origin in [("1", None), ("2", "1"), ("3", None)]:
        RunWriter(tmp_path / "store", "F", run_id, graph, origin=origin).close()
    store = ["--store", str(tmp_path / "store")]
    assert invoke(["runs", *store]) == 0
    lines = [line.split("  ")[:2] for line in capsys.readouterr().out.splitlines()[1:]]
    assert [[part.strip() for part in line] for line in lines] == [
        ["F/3", "interrupted"],
        ["F/2", "interrupted"],
        ["F/1", "resumed as 2"],
    ]
    assert invoke(["show", "F/1", *store]) == 0
    assert re.search(r"^resumed as +2$", capsys.readouterr().out, re.MULTILINE)
    assert invoke(["runs", "--json", *store]) == 0
    told = {each["run_id"]: each["resumed_as"] for each in as_json(capsys.readouterr().out)}
    assert told == {"3": [], "2": [], "1": ["2"]}


def test_dump_of_one_value_that_cannot_be_shown(losing, capsys) -> None:
    """It says that the value is there, and why it is not shown."""
    (run,) = (losing / "flows" / "LosingFlow").glob("[0-9]*")
    shy = f"LosingFlow/{run.name}/start/1/shy"
    assert invoke(["dump", shy, "--store", str(losing)]) == 1
    out, err = capsys.readouterr()
    assert (out, err) == (
        "",
        f"Error: {shy} is there and cannot be shown: OSError: not today\n",
    )


FILES_FLOW = """
from asyncflow import FlowSpec, step

class FilesFlow(FlowSpec):
    @step
    def start(self):
        self.raw, self.text, self.number = bytes(range(256)), "grün\\r\\n", 7
        self.next(self.end)

    @step
    def end(self):
        self.drawn = self.figure() if hasattr(self, "figure") else None
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A task that has values which are a file's content by themselves, and its store."""
    folder = tmp_path_factory.mktemp("files")
    file, store = folder / "files_flow.py", folder / "store"
    file.write_text(FILES_FLOW, encoding="utf-8")
    command = [sys.executable, "-m", "asyncflow", "run", str(file), "--store", str(store)]
    subprocess.run(command, capture_output=True, check=True)
    (run,) = (store / "flows" / "FilesFlow").glob("[0-9]*")
    return f"FilesFlow/{run.name}/start/1", store


@pytest.mark.parametrize(
    ("name", "content"),
    [("raw", bytes(range(256))), ("text", "grün\r\n".encode()), ("number", b"7\n")],
)
def test_dump_writes_bytes_as_bytes_and_text_as_text(files, tmp_path, name, content) -> None:
    """Into a file, whatever they are; any other value as it is printed."""
    task, store = files
    target = tmp_path / "out"
    assert invoke(["dump", f"{task}/{name}", "--store", str(store), "-o", str(target)]) == 0
    assert target.read_bytes() == content


def test_dump_of_several_artifacts_is_as_it_is_printed(files, tmp_path, capsys) -> None:
    """Also in a file."""
    task, store = files
    assert invoke(["dump", task, "--store", str(store), "--include", "text,number"]) == 0
    printed = capsys.readouterr().out
    assert printed == f"# {task}\ntext = 'grün\\r\\n'\nnumber = 7\n"
    more = ["--exclude", "raw", "-o", str(tmp_path / "out")]
    assert invoke(["dump", task, "--store", str(store), *more]) == 0
    assert (tmp_path / "out").read_text() == printed


def test_dump_raw_writes_the_stored_bytes_and_unpickles_nothing(
    place, tmp_path, capsys, monkeypatch
) -> None:
    """Whatever the value is; a pickle can be read by another program."""
    artifact, file = f"{place.good}/work/2/odd", tmp_path / "odd.pkl"
    monkeypatch.setattr(ArtifactReader, "load", lambda *_: pytest.fail("it was unpickled"))
    dump = ["dump", "--raw", "--store", str(place.store)]
    assert invoke([*dump, artifact, "-o", str(file)]) == 0
    assert pickle.loads(file.read_bytes()) == {1, 2}
    assert invoke([*dump, f"{place.good}/work/2", "-o", str(file)]) == 2
    assert "name it behind" in capsys.readouterr().err
    assert invoke([*dump, artifact, "--json"]) == 2
    assert "leave out --file, --json" in capsys.readouterr().err


def test_dump_shows_no_value_that_is_larger_than_was_said(files, capsys) -> None:
    """By its size in the store; that is no error."""
    task, store = files
    assert invoke(["dump", task, "--store", str(store), "--max-value-size", "100"]) == 0
    assert "raw = <bytes of 256 bytes, more than --max-value-size>" in capsys.readouterr().out


def test_dump_writes_a_pickle_as_metaflow_does(files, tmp_path) -> None:
    """The values by run, step and task, and by name."""
    task, store = files
    target = tmp_path / "out.pkl"
    more = ["--file", str(target), "--include", "number,text"]
    assert invoke(["dump", task, "--store", str(store), *more]) == 0
    assert pickle.loads(target.read_bytes()) == {
        task.partition("/")[2]: {"text": "grün\r\n", "number": 7}
    }


OWN_CLASSES_FLOW = """
import helper
from asyncflow import FlowSpec, step

class Box:
    def __init__(self, content):
        self.content = content

class Locked(Box):
    def __setstate__(self, state):
        self.content, self.lock = state["content"], __import__("threading").Lock()

class OwnClassesFlow(FlowSpec):
    @step
    def start(self):
        self.box, self.pots = Box(3), [helper.Pot(4)]
        self.next(self.end)

    @step
    def end(self):
        self.first, self.second, self.locked = helper.Pot(5), helper.Pot(6), Locked(7)

if __name__ == "__main__":
    OwnClassesFlow()
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A run whose values are of classes of the flow's file, and of a module beside it."""
    folder = tmp_path_factory.mktemp("own")
    file, store = folder / "own_flow.py", folder / "store"
    file.write_text(OWN_CLASSES_FLOW)
    (folder / "helper.py").write_text(
        "class Pot:\n    def __init__(self, size):\n        self.size = size\n"
        "    def __repr__(self):\n        return f'Pot({self.size})'\n"
    )
    command = [sys.executable, "-m", "asyncflow", "run", str(file), "--store", str(store)]
    subprocess.run(command, capture_output=True, check=True)
    (run,) = (store / "flows" / "OwnClassesFlow").glob("[0-9]*")
    return Place(file, store, f"OwnClassesFlow/{run.name}", "")


def carried_out(
    own: Place, *arguments: str, script: bool = False
) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, which has imported nothing of the flow."""
    begins = [str(own.file)] if script else ["-m", "asyncflow"]
    command = [sys.executable, *begins, *arguments, "--store", str(own.store)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=60, cwd=own.store
    )


@pytest.mark.parametrize("script", [False, True])
def test_a_pickle_of_the_flows_own_classes_opens_elsewhere(own, tmp_path, script) -> None:
    """Where nobody can import the flow's file, whoever has written it."""
    file = tmp_path / "out.pkl"
    task = f"{own.good}/start/1"
    done = carried_out(own, "dump", task, "--include=box", "--file", str(file), script=script)
    assert (done.returncode, done.stderr) == (0, "")
    loaded = f"pickle.load(open({str(file)!r}, 'rb'))[{task.partition('/')[2]!r}]"
    opens = f"import pickle; print({loaded}['box'].content)"
    read = subprocess.run(
        [sys.executable, "-c", opens], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert (read.stdout, read.stderr) == ("3\n", "")


def test_a_pickle_of_one_artifact(own, tmp_path) -> None:
    """It has the shape that the pickle of its task has."""
    file = tmp_path / "out.pkl"
    done = carried_out(own, "dump", f"{own.good}/start/1/pots", "--file", str(file))
    assert (done.returncode, done.stderr) == (0, "")
    assert b"helper" in file.read_bytes()


def test_a_pickle_leaves_out_what_cannot_be_pickled(own, tmp_path) -> None:
    """It names that, and has all other values; the exit status is 1."""
    file = tmp_path / "out.pkl"
    task = f"{own.good}/end/2"
    done = carried_out(own, "dump", task, "--include=box,locked", "--file", str(file))
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: {task}/locked cannot be pickled: ")
    assert len(done.stderr.splitlines()) == 1
    assert list(pickle.loads(file.read_bytes())[task.partition("/")[2]]) == ["box"]


def test_dump_finds_modules_beside_the_flows_file(own) -> None:
    """Wherever it is called from."""
    done = carried_out(own, "dump", f"{own.good}/start/1/pots")
    assert (done.stdout, done.stderr, done.returncode) == ("[Pot(4)]\n", "", 0)


def test_dump_tells_of_each_cause_once(own, tmp_path) -> None:
    """With how many values it keeps back, and what to do."""
    moved = tmp_path / "store"
    copytree(own.store, moved)
    helper = own.file.with_name("helper.py")
    text = helper.read_text()
    helper.unlink()
    try:
        alone = own._replace(store=moved)
        done = carried_out(alone, "dump", f"{own.good}/end/2", "--include=first,second,pots")
    finally:
        helper.write_text(text)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "No module named 'helper'; install it, or put the folder that has it on PYTHON" in line
    assert line.endswith("; 2 more for the same cause")


def test_dump_of_a_name_that_no_task_has(place, look) -> None:
    """It is wrong usage, and the name that is close is told."""
    error = look("dump", place.good, "--include", "total,badd", status=2)
    assert "--include: there is no artifact 'badd'; did you mean 'bad'?" in error


@pytest.mark.parametrize(
    ("suffix", "read"),
    [(".json", lambda file: json.loads(file.read_text())), (".pkl", pd.read_pickle)],
)
def test_dump_writes_a_value_as_its_suffix_says(place, look, tmp_path, suffix, read) -> None:
    """JSON and pickles of any value that can be that."""
    file = tmp_path / f"out{suffix}"
    look("dump", f"{place.good}/join/4/total", "-o", str(file))
    assert read(file) == 14


@pytest.mark.parametrize(
    ("suffix", "read"), [(".csv", partial(pd.read_csv, index_col=0)), (".parquet", pd.read_parquet)]
)
def test_a_frame_is_written_as_its_suffix_says(tmp_path, suffix, read) -> None:
    """By its own method."""
    frame, file = pd.DataFrame({"a": [1, 2]}), tmp_path / f"frame{suffix}"
    write_value(frame, file)
    assert read(file).equals(frame)


def test_an_array_is_written_whole(tmp_path) -> None:
    """As `numpy.load` reads it, not as a text that leaves most of it out."""
    array = np.arange(100_000)
    write_value(array, tmp_path / "array.npy")
    assert np.array_equal(np.load(tmp_path / "array.npy"), array)


@pytest.mark.parametrize("name", ["out.npy", "out.csv", "out.parquet", "out.xyz"])
def test_a_value_is_not_written_as_what_it_is_not(place, look, tmp_path, name) -> None:
    """The error lists what can be written, and there is no file."""
    file = tmp_path / name
    error = look("dump", f"{place.good}/join/4/total", "-o", str(file), status=2)
    assert "with one of the suffixes .pkl, .txt, .json" in error
    assert not file.exists()


def test_values_are_not_written_as_a_file_that_has_one(place, look, tmp_path) -> None:
    """Of several the error lists what can be written, and there is no file."""
    file = tmp_path / "out.csv"
    error = look("dump", place.good, "-o", str(file), status=2)
    assert "with one of the suffixes .txt, .json, .pkl, or name one artifact" in error
    assert not file.exists()


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_a_figure_is_written_as_a_picture_of_its_suffix(tmp_path, kind) -> None:
    """Of matplotlib, where that is installed; without a suffix nobody knows of which kind."""
    figure = pytest.importorskip("matplotlib.figure", reason="it is large, and nothing needs it")
    drawn = figure.Figure()
    drawn.subplots().plot([1, 2])
    write_value(drawn, tmp_path / f"plot.{kind}")
    begins = {"png": b"\x89PNG", "svg": b"<?xml"}[kind]
    assert (tmp_path / f"plot.{kind}").read_bytes().startswith(begins)
    with pytest.raises(ValueError, match="no suffix"):
        write_value(drawn, tmp_path / "plot")


def test_logs_of_a_task_with_the_time_of_each_line(place, look) -> None:
    """As local time, in place of what stands before the lines of a run's log."""
    text = look("logs", f"{place.good}/work/2", "--timestamps", "--stdout")
    assert text.endswith(" working on 3\n")
    for line in text.splitlines():
        assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d ", line)


@pytest.mark.parametrize("kind", ["", "--json"])
def test_dump_of_what_cannot_all_be_read(losing, capsys, kind) -> None:
    """The rest is printed; what is missing is named with its reason, and the exit status is 1."""
    (run,) = (losing / "flows" / "LosingFlow").glob("[0-9]*")
    task = f"LosingFlow/{run.name}/start/1"
    options = ["--store", str(losing), *([kind] if kind else [])]
    assert invoke(["dump", task, *options]) == 1
    out, err = capsys.readouterr()
    assert re.search(rf"^Error: .*{task}/lost.* is gone", err, re.MULTILINE)
    assert f"Error: {task}/shy is there and cannot be shown: OSError: not today" in err
    if kind:
        data = as_json(out)
        assert (data["first"], data["last"]) == (1, 4)
        assert data["lost"].keys() == {"type", "error"}
    else:
        assert out.splitlines()[1:] == [
            "first = 1",
            "lost = <bytes that cannot be read>",
            "shy = <losing_flow.Shy that is there and cannot be shown: OSError: not today>",
            "last = 4",
        ]


def test_dump_to_a_file(place, look, tmp_path) -> None:
    """`dump -o FILE` writes there and prints nothing."""
    path = tmp_path / "out"
    assert look("dump", f"{place.good}/join/4/total", "-o", str(path)) == ""
    assert path.read_text() == "14\n"


def test_dump_into_no_folder(place, look, tmp_path) -> None:
    """A file that cannot be made is wrong usage, told before a value is read."""
    file = tmp_path / "missing" / "values.txt"
    error = look("dump", f"{place.good}/join/4/total", "-o", str(file), status=2)
    assert f"there is no folder {file.parent}: make it, or name a file elsewhere" in error


def test_dump_of_what_has_failed(place, look) -> None:
    """A task that failed has what it left, a run nothing; the error says so."""
    assert "bad = 1" in look("dump", f"{place.failed}/work/3")
    assert "has not succeeded" in look("dump", place.failed, status=2)


# --- wrong usage with --json ---


@pytest.mark.parametrize(
    "arguments",
    [
        ("runs", "--json", "--bogus"),
        ("runs", "NoSuchFlow", "--json"),
        ("show", "../../etc", "--json"),
        ("dump", "LookedAtFlow/1", "--json"),
        ("events", "LookedAtFlow/1", "--json"),
        ("verify", "NoSuchFlow", "--json"),
        ("run", "no_such_file.py", "--json"),
    ],
)
def test_wrong_usage_leaves_nothing_for_a_program_to_read(place, capsys, arguments) -> None:
    """The text is on stderr, stdout is empty, and the exit status tells."""
    assert invoke([*arguments, "--store", str(place.store)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Error: " in captured.err


# --- events -----------------------------------------------------------------------------------


def test_events_as_json(place, look) -> None:
    """`events RUN --json` has a JSON object on each line, in order and without gaps."""
    events = [json.loads(line) for line in look("events", place.good, "--json").splitlines()]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert events[0]["type"] == "RunStarted"
    assert events[-1]["type"] == "RunSucceeded"


def test_events_for_people(place, look) -> None:
    """`events RUN` has a line for each event: number, time, what, which task, and more."""
    lines = look("events", place.failed).splitlines()
    assert re.match(r" +1 \d{4}-\d\d-\d\d .* RunStarted ", lines[0])
    assert re.search(r"TaskFailed +work/3 .*exception_type='ValueError'", "\n".join(lines))
    assert re.search(r"RunFailed +step='work' task_id='3'", lines[-1])


# --- of one flow ------------------------------------------------------------------------------


def test_one_flow_needs_no_name(place, capsys) -> None:
    """On the command line of one flow, pathspecs may leave out its name."""
    flow, run_id = load_flow(str(place.file)), place.good.split("/")[1]

    def text(*arguments):
        options = ["--store", str(place.store)]
        assert invoke([*arguments, *options], flow=flow, script="looked_at_flow.py") == 0
        return capsys.readouterr().out

    assert text("show", run_id) == text("show", place.good)
    assert text("dump", f"{run_id}/join/4/total") == "14\n"
    assert place.good in text("show")
    assert place.good in text("runs")
    assert "Workflow starting" in text("logs", run_id)


# --- caught failures ----------------------------------------------------------------------------

CATCHING = """
from asyncflow import FlowSpec, catch, retry, step

class CatchingFlow(FlowSpec):
    @step
    def start(self):
        self.items = [1, 0, 2, 0]
        self.next(self.divide, foreach="items")

    @catch(var="failure", print_exception=False)
    @retry(times=1, seconds=0)
    @step
    def divide(self):
        self.result = 1 / self.input
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass
"""


@pytest.fixture(scope="module")
def catching(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A store with a run in which failures were caught, and one that was resumed from it."""
    folder = tmp_path_factory.mktemp("catching")
    file, store = folder / "catching_flow.py", folder / "store"
    file.write_text(CATCHING)

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "asyncflow", *arguments, "--json", "--workers=1"]
        done = subprocess.run(
            [*command, "--store", str(store)], capture_output=True, text=True, check=False
        )
        return str(json.loads(done.stdout)["pathspec"])

    return Place(file, store, run("run", str(file)), run("resume", str(file)))


def show_of(place: Place, pathspec: str, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    """What `show` prints."""
    assert invoke(["show", pathspec, "--store", str(place.store), *more]) == 0
    return capsys.readouterr().out


def test_show_tells_of_failures_that_were_caught(catching, capsys) -> None:
    """For a run and a step how many, for a task which; the tasks have succeeded all the same."""
    text = show_of(catching, catching.good, capsys)
    assert re.search(r"^divide +4 +4 succeeded \(2 caught\)$", text, re.MULTILINE)
    assert re.search(r"^start +1 +1 succeeded$", text, re.MULTILINE)
    assert "4 succeeded (2 caught)" in show_of(catching, f"{catching.good}/divide", capsys)
    data = json.loads(show_of(catching, catching.good, capsys, "--json"))
    assert {Path(step["pathspec"]).name: step["caught"] for step in data["steps"]} == {
        "start": 0,
        "divide": 2,
        "join": 0,
        "end": 0,
    }
    tasks = list(Run(catching.good, store=catching.store)["divide"])
    assert [task.caught and task.caught.type for task in tasks] == [
        None,
        "ZeroDivisionError",
        None,
        "ZeroDivisionError",
    ]
    one = show_of(catching, tasks[1].pathspec, capsys)
    assert f"\ncaught: step divide, task {tasks[1].id}, attempt 1\n" in one
    assert "ZeroDivisionError: division by zero" in one
    assert "caught" not in show_of(catching, tasks[0].pathspec, capsys)


def test_a_caught_failure_is_dumped_with_the_name_that_is_documented(catching, capsys) -> None:
    """The artifact that `@catch` names."""
    task = list(Run(catching.good, store=catching.store)["divide"])[1]
    assert invoke(["dump", f"{task.pathspec}/failure", "--store", str(catching.store)]) == 0
    said = f"Failure(step='divide', task_id='{task.id}', attempt=1, type='ZeroDivisionError', "
    assert capsys.readouterr().out.startswith(said)
    assert task.data.failure.exception_type == task.data.failure.type


def test_a_resumed_run_leaves_it_to_the_run_that_it_resumed(catching, capsys) -> None:
    """There the task did its work, and its view tells where that was."""
    assert Run(catching.failed, store=catching.store).caught() == {}
    task = list(Run(catching.failed, store=catching.store)["divide"])[1]
    assert task.caught is None
    assert task.origin_pathspec is not None
    assert "caught: step divide" in show_of(catching, task.origin_pathspec, capsys)


def test_show_works_though_the_journal_is_damaged(catching, tmp_path, capsys) -> None:
    """It says what it cannot tell."""
    store = tmp_path / "copy"
    copytree(catching.store, store)
    path = store / "flows" / catching.good / "journal"
    data = bytearray(path.read_bytes())
    at = data.index(b"ZeroDivisionError")
    data[at] ^= 1
    path.write_bytes(data)
    assert invoke(["show", f"{catching.good}/divide", "--store", str(store)]) == 0
    said = "4 succeeded (how many were caught cannot be read: the journal is damaged)"
    assert said in capsys.readouterr().out


@pytest.mark.parametrize("command", [["logs"], ["events"], ["events", "--json"]])
def test_what_lies_before_the_damage_is_shown(catching, tmp_path, capsys, command) -> None:
    """And then where the journal is damaged."""
    store = tmp_path / "copy"
    copytree(catching.store, store)
    path = store / "flows" / catching.good / "journal"
    data = bytearray(path.read_bytes())
    at = data.rindex(b"ZeroDivisionError")
    data[at] ^= 1
    path.write_bytes(data)
    assert invoke([*command, catching.good, "--store", str(catching.store)]) == 0
    whole = capsys.readouterr().out
    assert invoke([*command, catching.good, "--store", str(store)]) == 1
    shown = capsys.readouterr()
    assert whole.startswith(shown.out)
    assert len(shown.out.splitlines()) > 8  # more than the first read of a journal brings
    assert len(shown.out) < len(whole)
    assert "is damaged: the record at byte" in shown.err


# --- runs by time ---------------------------------------------------------------------------------

STARTED = [datetime(2026, 11, 27, 8, minute).astimezone(UTC) for minute in (10, 30, 50)]


@pytest.fixture
def timed(store, capsys):
    """The minutes of the runs that a command lists: of three, started at 8:10, 8:30 and 8:50."""
    for began in STARTED:
        linear(store, str(to_microseconds(began)), began=began)

    def listed(*options):
        assert invoke(["runs", *options, "--json", "--store", str(store)]) == 0
        runs = json.loads(capsys.readouterr().out)
        return [datetime.fromisoformat(run["created_at"]).astimezone().minute for run in runs]

    return listed


@pytest.mark.parametrize(
    ("options", "minutes"),
    [
        (["--since", "2026-11-27 08:30:00"], [50, 30]),
        (["--before", "2026-11-27 08:30"], [10]),
        (["--since", "2026-11-27 08:20", "--before", "2026-11-27 08:45"], [30]),
        (["--flow", "F", "--since", "2026-11-27 08:45"], [50]),
        (["--since", "5000w"], [50, 30, 10]),
    ],
)
def test_runs_are_chosen_by_the_time_of_their_start(timed, options, minutes):
    """Times are those of the local time zone; an age is that long ago."""
    assert timed(*options) == minutes


@pytest.mark.parametrize("when", ["soon", "2d ago", "", "2026-13-01", "999999999w"])
def test_what_is_no_time_is_refused(look, when):
    """The error says how to write one."""
    assert "is no time: write 2d" in look("runs", "--since", when, status=2)
