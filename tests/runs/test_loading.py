"""A flow runs wherever its class was made: script, module, package, prompt, notebook, closure."""

from __future__ import annotations

import json
import linecache
import os
import subprocess
import sys
import textwrap
import types

import pytest

import asyncflow
from asyncflow import Engine, FlowSpec, step

FLOW = """
import enum, os, sys
from dataclasses import dataclass
from asyncflow import FlowSpec, step

class Colour(enum.Enum):
    RED = 1

@dataclass
class Model:
    weight: float
    colour: Colour

class Training(FlowSpec):
    @step
    def start(self):
        self.model = Model(1.0, Colour.RED)
        self.models = [Model(float(number), Colour.RED) for number in range(4)]
        self.next(self.work, foreach="models")
    @step
    def work(self):
        self.same = [isinstance(each, Model) and each.colour is Colour.RED
                     for each in (self.input, self.model)]
        self.mine = self.input
        self.next(self.join)
    @step
    def join(self, inputs):
        self.same = [each for one in inputs for each in one.same]
        self.same += [isinstance(one.mine, Model) for one in inputs]
        self.merge_artifacts(inputs, include=["model"])
        self.next(self.end)
    @step
    def end(self):
        self.found = os.getcwd(), sys.argv[1:], sys.stdin.read()
"""

REPORT = """
def report(run):
    data = run.data
    print(all(data.same), len(data.same), isinstance(data.model, Model),
          data.model == Model(1.0, Colour.RED), *data.found)
"""

APPLICATION = f"""
{FLOW}{REPORT}
import asyncio, asyncflow

async def main():
    async with asyncflow.Engine(workers=2) as engine:
        report(await engine.run(Training))
"""

GUARDED = f"""{APPLICATION}
if __name__ == "__main__":
    asyncio.run(main())
"""

PROGRAM = f"""{FLOW}
if __name__ == "__main__":
    Training()
"""


@pytest.fixture
def folder(tmp_path, store):
    """A working directory with nothing in it."""
    made = tmp_path / "work"
    made.mkdir()
    return made


def python(folder, *arguments, given="", module="", expected=0):
    """Run Python there to its end; what it printed."""
    start = [sys.executable, *(["-m", module] if module else []), *arguments]
    done = subprocess.run(
        start, cwd=folder, input=given, capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == expected, done.stderr
    return done.stdout if not expected else done.stderr


def reported(folder, arguments):
    """What `report` prints when all is well."""
    return f"True 12 True True {folder} {arguments} \n"


def show(flow="Training"):
    """What a process that knows nothing of the flow's file sees of the latest run."""
    code = f"""
    import asyncflow, json
    run = asyncflow.Flow({flow!r}).latest_run
    data = run.data
    print(json.dumps([run.successful, all(data.same), data.model.weight, data.model.colour.name]))
    """
    return json.loads(python("/", "-c", textwrap.dedent(code)))


# --- scripts --------------------------------------------------------------------------------------


def test_an_application_script_runs_its_own_flow(folder):
    """Its classes are the same in every worker and, read back, in the application."""
    (folder / "app.py").write_text(GUARDED)
    assert python(folder, "app.py", "one", "two") == reported(folder, ["one", "two"])


HELPED = """
from asyncflow import FlowSpec, run_sync, step

class Point:
    pass

def make_point():
    return Point()

def make_flow():
    class PointFlow(FlowSpec):
        @step
        def start(self):
            self.point = make_point()
            self.next(self.end)

        @step
        def end(self):
            pass

    return PointFlow

if __name__ == "__main__":
    print(isinstance(run_sync(make_flow()).data.point, Point))
"""


def test_what_a_helper_of_a_pickled_flow_makes_is_of_the_programs_own_class(folder):
    """Also where no step names the class."""
    (folder / "app.py").write_text(HELPED)
    assert python(folder, "app.py") == "True\n"


def test_a_flow_under_the_guard_fails_with_the_remedy(folder):
    """No worker would ever find it."""
    indented = textwrap.indent(APPLICATION.strip() + "\nasyncio.run(main())\n", "    ")
    (folder / "app.py").write_text(f'if __name__ == "__main__":\n{indented}')
    told = python(folder, "app.py", expected=1)
    assert "stands under `if __name__" in told
    assert "put it above that" in told


def test_an_application_in_a_folder_runs_its_own_flow(folder):
    """Python calls the module of a folder's `__main__.py` so, as it does the program."""
    (folder / "__main__.py").write_text(GUARDED)
    assert python(folder, ".", "one", "two") == reported(folder, ["one", "two"])


def test_a_script_without_guard_fails_with_the_remedy(folder):
    """A worker that imports it refuses to start an engine: no process starts another."""
    (folder / "app.py").write_text(APPLICATION + "asyncio.run(main())")
    told = python(folder, "app.py", expected=1)
    assert 'put it under `if __name__ == "__main__":`' in told


@pytest.mark.parametrize("start", ["command", "program"])
def test_a_program_without_guard_runs(folder, start):
    """A bare `MyFlow()` does nothing where the file is run for what it defines."""
    (folder / "flow.py").write_text(FLOW + "Training()")
    if start == "program":
        python(folder, "flow.py", "run", "--quiet")
    else:
        python(folder, "check", "flow.py", module="asyncflow")
        python(folder, "run", "flow.py", "--quiet", module="asyncflow")
    assert show() == [True, True, 1.0, "RED"]


def test_a_program_that_imports_a_flow_without_guard_is_told_the_remedy(folder):
    """The command line of the flow does not take the place of the program."""
    (folder / "flow.py").write_text(FLOW + "Training()")
    (folder / "app.py").write_text("import flow")
    told = python(folder, "app.py", "run", expected=1)
    line = FLOW.count("\n") + 1
    assert f"flow.py:{line}: this is a command line whenever the file is imported" in told
    assert told.endswith('put it under `if __name__ == "__main__":`\n')


@pytest.mark.parametrize("name", ["hello.v2.py", "exp.1/flow.py", ".hidden.py", "pack/hello.v2.py"])
@pytest.mark.parametrize("start", ["command", "program", "application"])
def test_a_file_with_a_dot_in_its_name_is_run(folder, name, start):
    """Or in that of its package's folder: by each way to start, and in its workers."""
    file = folder / name
    file.parent.mkdir(exist_ok=True)
    (file.parent / "__init__.py").touch()
    file.write_text(GUARDED if start == "application" else PROGRAM)
    if start == "command":
        python(folder, "run", f"{name}:Training", "--quiet", module="asyncflow")
    elif start == "program":
        python(folder, name, "run", "--quiet")
    else:
        assert python(folder, name) == reported(folder, [])
    assert show() == [True, True, 1.0, "RED"]


@pytest.mark.parametrize("start", [["-m", "asyncflow", "run", "flow.py"], ["flow.py", "run"]])
@pytest.mark.parametrize("link", ["flow.py", "linked.py"])
def test_a_reader_that_has_the_file_imported_has_its_classes(folder, start, link):
    """Whatever the file was called when it ran, and whatever it is called in the reader."""
    (folder / "flow.py").write_text(FLOW + "if __name__ == '__main__': Training()")
    if link != "flow.py":
        (folder / link).symlink_to("flow.py")
    subprocess.run([sys.executable, *start, "--quiet"], cwd=folder, check=True)
    module = link.removesuffix(".py")
    reader = f"""
import asyncflow, {module}
read = asyncflow.Flow("Training").latest_run.data.model
print(type(read) is {module}.Model, read.colour is {module}.Colour.RED)
"""
    (folder / "reader.py").write_text(reader)
    assert python(folder, "reader.py") == "True True\n"


def test_the_program_itself_reads_what_a_worker_has_made_of_its_classes(folder):
    """Its file is `__main__` there, and a module in the worker."""
    own = 'read = asyncflow.Flow("Training").latest_run.data.model; print(type(read) is Model)'
    (folder / "flow.py").write_text(f"import asyncflow\n{FLOW}if __name__ == '__main__': {own}")
    python(folder, "run", "flow.py", "--quiet", module="asyncflow")
    assert python(folder, "flow.py") == "True\n"


@pytest.mark.parametrize("arguments", [["run", "flow.py"], ["run", "flow.py:Training"]])
def test_a_flow_file_is_run_by_the_command(folder, arguments):
    """`asyncflow run FILE` gives a run that a process without the file can open."""
    (folder / "flow.py").write_text(PROGRAM)
    python(folder, *arguments, "--quiet", module="asyncflow")
    assert show() == [True, True, 1.0, "RED"]


def test_a_flow_file_is_run_as_a_program(folder):
    """`python FILE run` gives a run that a process without the file can open."""
    (folder / "flow.py").write_text(PROGRAM)
    python(folder, "flow.py", "run", "--quiet")
    assert show() == [True, True, 1.0, "RED"]


def test_a_script_from_standard_input(folder):
    """`python < script` has no file that a worker could import."""
    given = APPLICATION + "asyncio.run(main())"
    assert python(folder, "-", "one", given=given) == reported(folder, ["one"])


def test_a_command_line_script(folder):
    """Neither has `python -c`."""
    assert python(folder, "-c", GUARDED) == reported(folder, [])


LARGE_GLOBAL = """
import threading
import asyncflow
from asyncflow import FlowSpec, step

table = b"x" * 2_000_000
lock = threading.Lock()

def measured():
    return len(table)

class Point:
    def size(self):
        return len(table)

def make():
    class UsesGlobal(FlowSpec):
        @step
        def start(self):
            self.size, self.point = measured(), Point()
            self.next(self.end)

        @step
        def end(self):
            self.same = isinstance(self.point, Point)

    return UsesGlobal

UsesGlobal = make()
if __name__ == "__main__":
    data = asyncflow.run_sync(WHICH).data
    print(data.size, data.same, isinstance(data.point, Point), data.point.size())
"""


@pytest.mark.parametrize("which", ["UsesGlobal", "make()"])
@pytest.mark.parametrize("from_file", [False, True], ids=["stdin", "file"])
def test_a_large_global_travels_with_a_flow_that_no_worker_can_import(folder, which, from_file):
    """Two megabytes that a function, and a class of an artifact, refer to."""
    text = LARGE_GLOBAL.replace("WHICH", which)
    (folder / "app.py").write_text(text)
    told = python(folder, "app.py") if from_file else python(folder, "-", given=text)
    assert told == "2000000 True True 2000000\n"


@pytest.mark.parametrize("from_file", [False, True], ids=["stdin", "file"])
def test_a_global_that_cannot_travel_is_named(folder, from_file):
    """Before the run begins, with what uses it and what to do."""
    text = LARGE_GLOBAL.replace("return len(table)", "return lock", 1).replace("WHICH", "make()")
    (folder / "app.py").write_text(text)
    arguments = ["app.py"] if from_file else ["-"]
    told = python(folder, *arguments, given=text, expected=1)
    assert "UsesGlobal.start's global measured's global lock is a _thread.lock" in told
    assert told.endswith("or put the code into a file: each worker imports that\n")


# --- modules --------------------------------------------------------------------------------------


@pytest.fixture
def package(folder):
    """A package whose modules import each other relatively."""
    inner = folder / "package" / "inner"
    inner.mkdir(parents=True)
    (folder / "package" / "__init__.py").write_text("")
    (folder / "package" / "shared.py").write_text("VALUE = 3")
    (inner / "__init__.py").write_text("")
    (inner / "flow.py").write_text(f"from ..shared import VALUE\n{PROGRAM}")
    (inner / "app.py").write_text(f"from ..shared import VALUE\n{GUARDED}")
    return folder


@pytest.mark.parametrize(
    "target", ["package/inner/flow.py", "package.inner.flow", "package.inner.flow:Training"]
)
def test_a_module_with_relative_imports_is_run_by_the_command(package, target):
    """By its file and by its dotted name."""
    python(package, "run", target, "--quiet", module="asyncflow")
    assert show() == [True, True, 1.0, "RED"]


def test_a_module_with_relative_imports_is_run_as_a_program(package):
    """`python -m package.module run`."""
    python(package, "run", "--quiet", module="package.inner.flow")
    assert show() == [True, True, 1.0, "RED"]


def test_an_application_in_a_package(package):
    """`python -m package.module`: the classes of `__main__` are the package's in a worker."""
    assert python(package, "x", module="package.inner.app") == reported(package, ["x"])


async def test_a_module_is_found_by_a_path_set_after_the_engine_has_started(
    store, tmp_path, monkeypatch
):
    """A warm worker looks for modules where the program does when it starts the run."""
    async with Engine(workers=1) as engine:
        await engine.run(closure(0))
        (tmp_path / "found_later.py").write_text(FLOW)
        monkeypatch.syspath_prepend(tmp_path)
        module = __import__("found_later")
        try:
            run = await engine.run(module.Training)
        finally:
            del sys.modules["found_later"]
    assert all(run.data.same)


# --- without a module -----------------------------------------------------------------------------


def closure(value):
    """A flow that refers to a local variable."""

    class Closure(FlowSpec):
        @step
        def start(self):
            self.value = value
            self.next(self.end)

        @step
        def end(self):
            pass

    return Closure


async def test_closures_keep_their_values_on_a_warm_worker(store):
    """Two classes of one name that differ in a variable of theirs."""
    async with Engine(workers=1) as engine:
        values = [(await engine.run(closure(value))).data.value for value in (1, 2, 1)]
    assert values == [1, 2, 1]


@pytest.mark.parametrize("name", ["__main__", "made_up"])
def test_a_flow_from_executed_text(folder, name):
    """`exec` with a namespace of its own, that looks like the script or like no module there is."""
    script = f"""
import asyncflow
namespace = {{"__name__": {name!r}}}
exec({FLOW + REPORT!r}, namespace)
if __name__ == "__main__":
    namespace["report"](asyncflow.run_sync(namespace["Training"]))
"""
    (folder / "app.py").write_text(script)
    assert python(folder, "app.py") == reported(folder, [])


def typed(text):
    """Text as one would type it at the prompt: an empty line ends a class."""
    lines = [line for line in text.splitlines() if line.strip()]
    ended = []
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        ended.append(line)
        if line[0] == " " and following[:1] != " ":
            ended.append("")
    return "\n".join(ended) + "\n"


def test_a_flow_typed_at_the_prompt(folder):
    """There is no source anywhere; classes are the same in workers and at the prompt."""
    given = typed(FLOW) + typed(REPORT) + "import asyncflow\nreport(asyncflow.run_sync(Training))\n"
    printed = python(folder, "-i", given=given)
    assert printed == reported(folder, [])


def test_a_flow_typed_again_at_the_prompt_runs_as_changed(folder):
    """The second class of the name is the one that runs."""
    flow = """
class Again(FlowSpec):
    @step
    def start(self):
        self.value = VALUE
        self.next(self.end)
    @step
    def end(self):
        pass
"""
    given = "import asyncflow\nfrom asyncflow import *\n"
    for value in (1, 2):
        given += typed(flow.replace("VALUE", str(value)))
        given += "print(asyncflow.run_sync(Again).data.value)\n"
    assert python(folder, "-i", given=given) == "1\n2\n"


class Notebook:
    """Runs cells as IPython does: in `__main__`'s names, with their source in linecache."""

    def __init__(self, module):
        self.module = module
        self._count = 0

    def cell(self, source):
        """Run one."""
        self._count += 1
        source = textwrap.dedent(source)
        name = f"/tmp/ipykernel_{os.getpid()}/{self._count}.py"  # noqa: S108 - only a name
        linecache.cache[name] = len(source), None, source.splitlines(keepends=True), name
        exec(compile(source, name, "exec"), vars(self.module))  # noqa: S102 - as IPython does


@pytest.fixture
def notebook(monkeypatch):
    """A notebook, which is this process's `__main__` while the test runs."""
    module = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", module)
    return Notebook(module)


FIRST_CELL = """
from asyncflow import FlowSpec, step
def scale(number):
    return Scaled(number * 10)
class Scaled:
    def __init__(self, value):
        self.value = value
"""

FLOW_CELL = """
class InCell(FlowSpec):
    @step
    def start(self):
        self.made = scale(1)
        self.next(self.middle)
    @step
    async def middle(self):
        self.same = isinstance(self.made, Scaled)
        self.next(self.end)
    @step
    def end(self):
        self.version = 1
"""


@pytest.fixture
async def in_notebook(store, notebook):
    """A notebook and an engine, after the cells of the flow."""
    notebook.cell(FIRST_CELL)
    notebook.cell(FLOW_CELL)
    async with Engine(workers=2) as engine:
        yield notebook, engine


async def test_a_flow_from_a_notebook_cell(in_notebook):
    """With a function and a class of another cell; the class is the notebook's when read back."""
    notebook, engine = in_notebook
    data = (await engine.run(notebook.module.InCell)).data
    assert data.same
    assert isinstance(data.made, notebook.module.Scaled)
    assert data.made.value == 10


async def test_a_cell_that_is_run_again_changes_the_flow(in_notebook):
    """Workers that ran the first version run the second."""
    notebook, engine = in_notebook
    versions = []
    for version in (1, 2):
        notebook.cell(FLOW_CELL.replace("version = 1", f"version = {version}"))
        versions.append((await engine.run(notebook.module.InCell)).data.version)
    assert versions == [1, 2]


async def test_a_changed_function_of_another_cell_is_the_one_that_runs(in_notebook):
    """The flow's own cell need not be run again."""
    notebook, engine = in_notebook
    await engine.run(notebook.module.InCell)
    notebook.cell("def scale(number):\n    return Scaled(number * 100)")
    assert (await engine.run(notebook.module.InCell)).data.made.value == 100


# --- processes that steps start -------------------------------------------------------------------

SPREADING = """
import asyncio, multiprocessing
from concurrent.futures import ProcessPoolExecutor
from asyncflow import FlowSpec, step

def square(number):
    return number * number

class Spreading(FlowSpec):
    @step
    def start(self):
        self.squares = []
        for how in ("fork", "spawn", "forkserver"):
            context = multiprocessing.get_context(how)
            with context.Pool(1) as pool:
                self.squares += pool.map(square, [1, 2])
            with ProcessPoolExecutor(1, mp_context=context) as pool:
                self.squares += pool.map(square, [3])
        self.next(self.end)
    @step
    async def end(self):
        with ProcessPoolExecutor(1) as pool:
            self.squares += [await asyncio.get_running_loop().run_in_executor(pool, square, 4)]

if __name__ == "__main__":
    import asyncflow
    run = asyncflow.run_sync(Spreading)
    print(run.data.squares)
"""


def test_a_step_uses_multiprocessing_with_the_scripts_own_functions(folder):
    """Pools by fork, spawn and forkserver find the functions of a script that is the program."""
    (folder / "app.py").write_text(SPREADING)
    assert python(folder, "app.py") == f"{[1, 4, 9] * 3 + [16]}\n"


def test_a_flow_files_functions_reach_processes_of_its_steps(folder):
    """The same under `asyncflow run FILE`."""
    (folder / "flow.py").write_text(SPREADING)
    python(folder, "run", "flow.py", "--quiet", module="asyncflow")
    run = asyncflow.Flow("Spreading").latest_run
    assert run.data.squares == [1, 4, 9] * 3 + [16]
