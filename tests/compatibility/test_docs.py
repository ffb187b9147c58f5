"""README and docs: every example is carried out, and what they list is what there is."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from dataclasses import fields
from pathlib import Path

import click
import pytest

from asyncflow import FlowSpec, Run, events
from asyncflow._support.settings import Settings
from asyncflow.cli.command_table import Commands
from asyncflow.flow.config import FILES_VARIABLE, VALUES_VARIABLE
from asyncflow.store.artifacts import BLOB_BYTES, INLINE_BYTES
from asyncflow.store.object_store.addresses import CACHE_VARIABLE
from asyncflow.store.object_store.node_cache import CACHE_BYTES_VARIABLE
from asyncflow.store.run_index import Summary
from asyncflow.store.task_table import TaskState
from asyncflow.values import ArtifactRef, Encoding, Place
from tests.support.doc_pages import fences_of, needs_a_cluster, try_page

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
PLAIN_PAGES = [page for page in PAGES if not needs_a_cluster(page.read_text())]


@pytest.mark.parametrize("page", PLAIN_PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_example_of_a_page_runs(page, tmp_path):
    """Every Python block and every command of a page does what the page says."""
    complaints = try_page(page.read_text(), tmp_path)
    assert not complaints, "\n".join(complaints)


@pytest.mark.parametrize(
    ("page", "complaint"),
    [
        ("```python\n1 / 0\n```\n", "ZeroDivisionError"),
        ("```sh\nfalse\n```\n", "exit status 1"),
        ("```sh\ntrue  # exit status 1\n```\n", "exit status 0"),
        ("```python\nprint(1)\n```\n\n```\none\n```\n", "not printed: one"),
        ('```python title="a.py"\nprint(1)\n```\n', "a.py is never used"),
    ],
)
def test_an_example_that_does_not_hold_is_noticed(page, complaint, tmp_path):
    """What a page says wrongly about its own examples is told."""
    assert complaint in "\n".join(try_page(page, tmp_path))


@pytest.mark.parametrize(
    "page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: str(page.relative_to(ROOT))
)
def test_links_between_pages_lead_somewhere(page):
    """Every relative link is to a file that is there."""
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_code_in_a_table_has_no_bar(page):
    """Escaped, it is shown with its backslash in the built pages; as it is, it ends the cell."""
    cells = [line for line in page.read_text().splitlines() if line.startswith("|")]
    assert [line for line in cells if re.search(r"`[^`]*\\\|[^`]*`", line)] == []


# --- what the pages list ------------------------------------------------------------------------


def section(page, heading):
    """The text under a heading, up to the next one of the same level or above."""
    level = heading.index(" ")
    _, _, rest = page.partition(f"\n{heading}\n")
    return re.split(rf"\n#{{1,{level}}} ", rest)[0]


def table_of(text, number=0):
    """The cells of one of the tables of a text, without its head."""
    found = re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE)
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in found[number].splitlines()]
    return [[cell.strip() for cell in row] for row in rows[2:]]


ON_DISK = {
    "str": "str",
    "str | None": "str or nil",
    "int": "int",
    "int | None": "int or nil",
    "float": "float",
    "float | None": "float or nil",
    "bool": "bool",
    "bytes": "bin",
    "tuple[int, ...]": "array",
    "tuple[str, ...]": "array",
    "Mapping[str, Any]": "map",
    "Mapping[str, str]": "map",
}


@pytest.mark.parametrize("event", events.event_types(), ids=lambda event: event.__name__)
def test_the_events_page_has_every_field_in_its_place(event):
    """Position, name and type of each field are those of the code."""
    text = section((DOCS / "reference/events.md").read_text(), f"## {event.__name__}")
    expected = [["0", "", "int"], ["1", "`seq`", "int"], ["2", "`time`", "int"]]
    of_task = issubclass(event, events.TaskEvent)
    for position, each in enumerate(fields(event)[4:], 3):
        kind = "int" if of_task and each.name == "task_id" else ON_DISK[str(each.type)]
        expected.append([str(position), f"`{each.name}`", kind])
    if event is events.TaskLogged:
        named = re.findall(r"`(\w+)`", " ".join(row[0] for row in table_of(text)))
        assert named == [each.name for each in fields(event)[4:]]
        packed = ["int", "int", "int", "str", "int", "int", "int", "int", "bin", "int"]
        assert [row[2] for row in table_of(text, 1)] == packed
        return
    assert [row[:3] for row in table_of(text)] == expected
    assert table_of(text)[0][3] == f"the code: {event.code}"


def commands():
    """The commands of `asyncflow`, by name."""
    group = Commands()
    with click.Context(group) as context:
        return {name: group.get_command(context, name) for name in group.list_commands(context)}


@pytest.mark.parametrize("name", commands())
def test_the_reference_has_every_option_of_a_command(name):
    """A command's section lists its options, and no others."""
    text = section((DOCS / "reference.md").read_text(), f"### asyncflow {name}")
    command = commands()[name]
    parts = command.commands.values() if isinstance(command, click.Group) else [command]
    given = [param for part in parts for param in part.params]
    options = [each for each in given if isinstance(each, click.Option) and not each.hidden]
    rows = "".join(line for line in text.splitlines() if line.startswith("|"))
    assert set(re.findall(r"`(--?[a-z][a-z-]*)", rows)) == {
        spelling for option in options for spelling in option.opts
    }


def test_the_page_on_metaflow_has_every_option_that_only_its_users_know():
    """Those that `--help` does not tell of: each stands there, and no other."""
    flow = type("F", (FlowSpec,), {})
    parts = [Commands(flow), *commands().values()]
    hidden = [each for part in parts for each in part.params if getattr(each, "hidden", False)]
    spellings = {text for each in hidden for text in (*each.opts, *each.secondary_opts)}
    page = section((DOCS / "how-to/move-from-metaflow.md").read_text(), "## Command lines")
    rows = "".join(line for line in page.splitlines() if line.startswith("|"))
    assert set(re.findall(r"`(--[a-z][a-z-]*)", rows)) == spellings


def test_the_reference_has_every_command_and_no_other():
    """Each command has a section."""
    page = (DOCS / "reference.md").read_text()
    assert re.findall(r"^### asyncflow (\w+)$", page, re.MULTILINE) == list(commands())


def test_the_settings_page_has_every_setting():
    """Each setting is listed with its default, and each has its environment variable."""
    page = (DOCS / "how-to/parameters-and-settings.md").read_text()
    rows = {row[0]: row[1] for row in table_of(section(page, "## Settings"))}
    assert rows == {f"`{each.name}`": shown(each.default) for each in fields(Settings)}
    for text in (page, (DOCS / "reference.md").read_text()):
        named = set(re.findall(r"`(ASYNCFLOW_[A-Z0-9_]+)`", text.partition("Environment var")[2]))
        settings = {f"ASYNCFLOW_{each.name.upper()}" for each in fields(Settings)}
        of_caches = {CACHE_VARIABLE, CACHE_BYTES_VARIABLE}
        assert named == settings | {VALUES_VARIABLE, FILES_VARIABLE} | of_caches


def shown(default):
    """A default as the page shows it: a number as it is, text as code."""
    if default == "":
        return ""
    return str(default) if isinstance(default, int | float) else f"`{default}`"


def test_the_design_page_has_the_thresholds_and_layouts_of_the_code():
    """Where a value lies, and the fields of refs, summary and index, are as the page says."""
    page = (DOCS / "design.md").read_text()
    assert f"`INLINE_BYTES` ({INLINE_BYTES >> 10} KiB)" in page
    assert f"`BLOB_BYTES` ({BLOB_BYTES >> 10} KiB)" in page
    refs = table_of(section(page, "### refs"))
    assert [row[1] for row in refs] == list(ArtifactRef._fields)
    assert refs[0][2] == ", ".join(f"{each.value} {each.name.lower()}" for each in Place)
    words = ["pickle", "pickle with buffers", "items", "bytes"]
    assert refs[1][2] == ", ".join(f"{each.value} {words[each]}" for each in Encoding)
    summary = table_of(section(page, "### summary"))
    assert [row[1] for row in summary] == ["version", *Summary._fields]
    states = table_of(section(page, "### index"))[3][2]
    assert [int(number) for number in re.findall(r"\d", states)] == list(TaskState)


def test_the_design_page_tells_what_each_dependency_is_for():
    """No dependency is without a reason, and each is imported by whom the page names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {re.split(r"\W", each)[0] for each in project["dependencies"]}
    rows = table_of(section((DOCS / "design.md").read_text(), "## Dependencies"))
    assert {row[0] for row in rows} == needed
    for name, _, where in rows:
        importing = re.compile(rf"^\s*(?:import|from) {name}\b", re.MULTILINE)
        for place in re.findall(r"`([^`]+)`", where):
            path = ROOT / "asyncflow" / place
            sources = path.rglob("*.py") if path.is_dir() else [path]
            assert any(importing.search(source.read_text()) for source in sources), (name, place)


# --- the formats --------------------------------------------------------------------------------

FORMATS_FLOW = """
from asyncflow import FlowSpec, catch, current, retry, step
import numpy as np, os, sys

class Point:
    def __init__(self, x):
        self.x = x
    def __repr__(self):
        return f"Point({self.x})"

class FormatsFlow(FlowSpec):
    constant = "of the class"

    @step
    def start(self):
        self.tiny = 1
        self.handed_on = "inline, and long enough to be named by its place in the journal" * 3
        self.middling = [f"line {n}" for n in range(500)]
        self.raw, self.large_raw = b"r" * 5000, bytes(300_000)
        self.array = np.arange(60_000.0)
        self.points = (Point(1), Point(np.arange(2_000.0)), b"bytes", None)
        print("one\\ntwo")
        print("three", file=sys.stderr)
        self.next(self.each, foreach="points")

    @catch(var="failure", print_exception=False)
    @retry(times=1, seconds=0)
    @step
    def each(self):
        print("attempt", current.attempt, "of", self.index)
        if self.input is None and current.attempt == 0:
            raise ValueError("none")
        self.point = self.input
        self.double = lambda: 2
        self.next(self.join)

    @step
    def join(self, inputs):
        self.merge_artifacts(inputs, exclude=["point", "double"])
        self.array[0] = -1
        self.next(self.end)

    @step
    def end(self):
        print("no line end", end="")
        if not os.path.exists("mended"):
            raise KeyError("mend it")
"""

FOREIGN_PROGRAM = """
import json, sys
sys.modules["asyncflow"] = None  # importing it is an error from here on
from reader import Run

run = Run(sys.argv[1], "FormatsFlow", sys.argv[2])
summary, index = run.summary()
told = {"status": summary[1], "tasks": {}, "places": []}
for number, (started, ended, step, state, attempt, item) in enumerate(index, 1):
    record = run.records[ended]
    refs = run.artifacts(ended) if state in (2, 3, 4) else {}
    told["places"] += [[ref[0], ref[1]] for ref in refs.values()]
    values = {name: repr(run.value(ref)) for name, ref in refs.items() if name != "double"}
    called = [run.value(ref)() for name, ref in refs.items() if name == "double"]
    name = summary[11][step][0]
    if state == 4:
        origin = Run(sys.argv[1], "FormatsFlow", record[10])
        record = origin.records[origin.summary()[1][int(record[11]) - 1][1]]
        printed = [origin.output(record[12], stream).decode() for stream in (0, 1)]
    else:
        log = record[12 if state == 2 else 13]
        printed = [run.output(log, stream).decode() for stream in (0, 1)]
    told["tasks"][f"{name}/{number}"] = [values, called, printed, state in (2, 4)]
print(json.dumps(told))
"""


def told_by_asyncflow(run):
    """The same as `FOREIGN_PROGRAM` tells, by asyncflow's own client."""
    told = {}
    for task in run.tasks():
        values = {each.id: repr(each.data) for each in task if each.id != "double"}
        called = [each.data() for each in task if each.id == "double"]
        printed = [task.stdout, task.stderr]
        told[f"{task.parent.id}/{task.id}"] = [values, called, printed, task.successful]
    return told


@pytest.fixture
def two_runs(store, tmp_path, monkeypatch):
    """The ids of a run that failed, and of one that resumed it."""
    (tmp_path / "formats.py").write_text(FORMATS_FLOW)
    monkeypatch.chdir(tmp_path)
    asyncflow = [sys.executable, "-m", "asyncflow"]
    first = [*asyncflow, "run", "formats.py", "--quiet", "--run-id-file", "first"]
    assert subprocess.run(first, check=False, capture_output=True).returncode == 1
    origin = Path("first").read_text()
    Path("mended").touch()
    second = [*asyncflow, "resume", "formats.py", "--origin-run-id", origin, "--quiet"]
    subprocess.run([*second, "--run-id-file", "second"], check=True, capture_output=True)
    return origin, Path("second").read_text()


def test_a_reader_written_from_the_docs_alone_reads_a_store(store, tmp_path, two_runs):
    """The reader of the page on values finds in a store what asyncflow finds, without asyncflow."""
    page = (DOCS / "reference/values.md").read_text()
    (reader,) = [fence for fence in fences_of(page) if fence.title == "reader.py"]
    (tmp_path / "reader.py").write_text(reader.text)
    places = set()
    for run_id, status in zip(two_runs, ("failed", "succeeded"), strict=True):
        command = [sys.executable, "-c", FOREIGN_PROGRAM, str(store), run_id]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert told["status"] == status
        assert told["tasks"] == told_by_asyncflow(Run(f"FormatsFlow/{run_id}"))
        places |= {tuple(each) for each in told["places"]}
    assert {place for place, _ in places} == set(Place)
    assert {encoding for _, encoding in places} == set(Encoding)
