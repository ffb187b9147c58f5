"""The code of a flow reaches workers on machines that do not have its files."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import textwrap
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from asyncflow import Engine
from asyncflow._support.settings import Settings
from asyncflow.errors import FlowError, RecordError, RunFailedError, StoreError
from asyncflow.flow.code_files import MOST_BYTES, Code, CodeFiles
from asyncflow.flow.loader import load_file
from asyncflow.flow.unpacked_code import is_there, unpack
from asyncflow.store.layout import Layout
from asyncflow.testing import Loopback
from asyncflow.workers.messages import Opening
from asyncflow.workers.process.travelled_code import check_store_here
from tests.support.loopback_agents import loopback_agents
from tests.support.waiting import until

SECONDS = 180

FLOW = """
import os
import sent_helper
from sent_constants import FACTOR
from asyncflow import FlowSpec, Parameter, current, environment, step


class Thing:
    def __init__(self, value):
        self.value = value


class Sent(FlowSpec):
    alpha = Parameter("alpha", default=2)

    @environment(vars={"TOKEN": "swordfish", "LEVEL": "3"})
    @step
    def start(self):
        from sent_parts.inner import lazily
        self.number = lazily(sent_helper.double(self.alpha)) * FACTOR
        self.file, self.helper = __file__, sent_helper.__file__
        self.thing = Thing(self.number)
        self.is_right = "swordfish" == os.environ["TOKEN"]
        self.here = os.getcwd()
        with open("written.txt", "w") as file:
            file.write("by a step")
        self.next(self.end)

    @step
    def end(self):
        self.is_thing = type(self.thing) is Thing
        self.written = open("written.txt").read()
"""

FILES = {
    "sent_flow.py": FLOW,
    "sent_helper.py": "from sent_parts import double\n",
    "sent_constants.py": "FACTOR = 10\n",
    "sent_parts/__init__.py": "from .two import double\n",
    "sent_parts/two.py": "def double(x):\n    return 2 * x\n",
    "sent_parts/inner.py": "def lazily(x):\n    import sent_late\n    return x + sent_late.ONE\n",
    "sent_late.py": "ONE = 1\n",
    "sent_unused.py": "",
}


def written(folder, files):
    """The folder with these files."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(textwrap.dedent(text))
    return folder


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of a flow, which is also the working directory."""
    folder = written(tmp_path / "project", FILES)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.chdir(folder)
    yield folder
    for name in [name for name in sys.modules if name.startswith("sent_")]:
        del sys.modules[name]


@asynccontextmanager
async def other_machine():
    """Let no worker begin within the block: what is moved there, workers never saw."""
    await until(loopback_agents)
    (agent,) = loopback_agents()
    agent.suspend()
    yield
    agent.resume()


async def run_elsewhere(flow, store, folder, **settings):
    """The run of a flow by workers that do not have the folder."""
    given = Settings(store=store, **settings)
    moved = folder.with_name("moved")
    async with Engine(settings=given, executor=Loopback(workers=1)) as engine:
        async with other_machine():
            handle = await engine.start(flow)
            folder.rename(moved)
        try:
            return await handle
        finally:
            moved.rename(folder)


async def test_a_flow_runs_where_its_files_are_not(folder, store):
    """With what its modules import, and what a step imports when it runs; in a folder to write."""
    flow = load_file(folder / "sent_flow.py").Sent
    run = await run_elsewhere(flow, store, folder)
    data = run.data
    assert (data.number, data.is_right, data.is_thing) == (50, True, True)
    assert not {data.file, data.helper, data.here} & {str(each) for each in folder.rglob("*")}
    assert Path(data.file).parent == Path(data.helper).parent
    assert data.written == "by a step"
    assert sorted(run.code.files) == sorted(FILES.keys() - {"sent_unused.py"})


async def test_secrets_travel_beside_the_code_and_are_not_stored(folder, store):
    """What asterisks stand for goes to the workers alone."""
    run = await run_elsewhere(load_file(folder / "sent_flow.py").Sent, store, folder)
    assert run.data.is_right
    assert '"swordfish"' not in run.code.flowspec
    stored = [path for path in store.rglob("*") if path.is_file()]
    assert not [path for path in stored if b"swordfish" in path.read_bytes()]


async def test_files_that_lie_in_their_place_are_used_there(folder, store):
    """A shared folder, or the same image on all machines."""
    flow = load_file(folder / "sent_flow.py").Sent
    async with Engine(store=store, executor=Loopback(workers=1)) as engine:
        data = (await engine.run(flow)).data
    assert (data.file, data.here) == (str(folder / "sent_flow.py"), str(folder))
    (folder / "written.txt").unlink()


async def test_a_file_that_differs_on_the_machine_is_not_used(folder, store):
    """Not even if it is a helper's: then all of them come from what was sent."""
    flow = load_file(folder / "sent_flow.py").Sent
    async with Engine(store=store, executor=Loopback(workers=1)) as engine:
        async with other_machine():
            handle = await engine.start(flow)
            (folder / "sent_constants.py").write_text("FACTOR = 11\n")
        data = (await handle).data
    assert data.number == 50
    assert data.file != str(folder / "sent_flow.py")


async def test_an_edited_helper_is_used_by_the_next_run(folder, store):
    """Also by a worker that has imported the former one."""
    flow = load_file(folder / "sent_flow.py").Sent
    moved = folder.with_name("moved")
    numbers = []
    async with Engine(store=store, executor=Loopback(workers=1)) as engine:
        for factor in (10, 11):
            (folder / "sent_constants.py").write_text(f"FACTOR = {factor}\n")
            async with other_machine():
                handle = await engine.start(flow)
                folder.rename(moved)
            numbers.append((await handle).data.number)
            moved.rename(folder)
    assert numbers == [50, 55]


PACKAGE = {
    "sent_pack/__init__.py": "",
    "sent_pack/common/__init__.py": "",
    "sent_pack/common/tools.py": "def double(x):\n    return 2 * x\n",
    "sent_pack/flows/__init__.py": "",
    "sent_pack/flows/one.py": """
        from asyncflow import FlowSpec, step
        from ..common.tools import double

        class Packed(FlowSpec):
            @step
            def start(self):
                self.number, self.file = double(21), __file__
                self.next(self.end)

            @step
            def end(self):
                pass
    """,
}


@pytest.mark.parametrize("how", ["by its file", "by its name"])
async def test_a_flow_of_a_package_travels_with_the_package(tmp_path, store, monkeypatch, how):
    """With the modules of the package that it imports, whichever folder they are in."""
    folder = written(tmp_path / "project", PACKAGE)
    try:
        if how == "by its name":
            monkeypatch.syspath_prepend(folder)
        flow = load_file(folder / "sent_pack/flows/one.py").Packed
        run = await run_elsewhere(flow, store, folder)
    finally:
        for name in [name for name in sys.modules if name.startswith("sent_")]:
            del sys.modules[name]
    assert run.data.number == 42
    assert run.data.file.endswith("/sent_pack/flows/one.py")
    assert sorted(run.code.files) == sorted(PACKAGE)


PROGRAM = """
import asyncio, os, psutil, sys
import sent_helper
from asyncflow import Engine, FlowSpec, step
from asyncflow.store.layout import Layout
from asyncflow.testing import Loopback

class Typed(FlowSpec):
    @step
    def start(self):
        import sent_late
        self.number = sent_helper.double(20) + sent_late.ONE
        self.is_there = os.path.exists(PROJECT)
        self.next(self.end)

    @step
    def end(self):
        pass

PROJECT = sys.argv[2]

async def main():
    async with Engine(store=sys.argv[1], executor=Loopback(workers=1)) as engine:
        while not psutil.Process().children():
            await asyncio.sleep(0.01)
        (agent,) = psutil.Process().children()
        agent.suspend()
        handle = await engine.start(Typed)
        os.rename(PROJECT, PROJECT + "-moved")
        agent.resume()
        data = (await handle).data
        print(data.number, data.is_there)

if __name__ == "__main__":
    asyncio.run(main())
"""


# As IPython does: the source of a cell can be found, but is in no file.
CELL = """
import linecache, sys
cell = sys.stdin.read()
linecache.cache["<cell>"] = len(cell), None, cell.splitlines(keepends=True), "<cell>"
exec(compile(cell, "<cell>", "exec"))
"""


@pytest.mark.parametrize("how", [["program.py"], ["-"], ["-c", CELL]], ids=["script", "-", "cell"])
def test_a_script_and_a_program_without_a_file_travel_as_well(tmp_path, store, how):
    """A flow without a file travels as a value, and the modules beside it as files."""
    folder = written(tmp_path / "project", {**FILES, "program.py": PROGRAM})
    done = subprocess.run(
        [sys.executable, *how, str(store), str(folder)],
        check=False,
        cwd=folder,
        input=PROGRAM,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.stdout == "41 False\n", done.stderr


async def test_an_error_tells_of_a_module_that_did_not_travel(folder, store):
    """It says which files did."""
    text = FLOW.replace("import sent_late", "").replace(
        "from sent_parts.inner import lazily",
        'lazily = __import__("importlib").import_module("sent_" + "unused")',
    )
    (folder / "sent_flow.py").write_text(text)
    flow = load_file(folder / "sent_flow.py").Sent
    with pytest.raises(RunFailedError) as caught:
        await run_elsewhere(flow, store, folder)
    assert "No module named 'sent_unused'" in str(caught.value)
    assert "sent_helper.py, sent_parts/__init__.py" in str(caught.value)


async def test_without_kept_code_the_machine_needs_the_file(folder, store):
    """And the error says so."""
    flow = load_file(folder / "sent_flow.py").Sent
    with pytest.raises(RunFailedError, match=r"is not on this machine.*keep_code"):
        await run_elsewhere(flow, store, folder, keep_code="none")


def test_what_is_unpacked_cannot_be_written_to(tmp_path):
    """Neither the files nor the folders; and it is made once."""
    code = Code("a.py", {"a.py": b"1", "b/c.py": b"2"})
    made = unpack(code, tmp_path / "code")
    modes = {
        str(each.relative_to(made)): stat.S_IMODE(each.stat().st_mode) for each in made.rglob("*")
    }
    assert modes == {"a.py": 0o400, "b": 0o500, "b/c.py": 0o400}
    assert stat.S_IMODE(made.stat().st_mode) == 0o500
    assert unpack(code, tmp_path / "code") == made
    assert list((tmp_path / "code").iterdir()) == [made]


def test_what_somebody_has_changed_is_not_used(tmp_path):
    """It is left alone, and made again elsewhere."""
    code = Code("a.py", {"a.py": b"1"})
    made = unpack(code, tmp_path)
    (made / "a.py").chmod(0o600)
    (made / "a.py").write_bytes(b"2")
    again = unpack(code, tmp_path)
    assert again != made
    assert (again / "a.py").read_bytes() == b"1"


def test_a_link_in_the_place_of_the_code_is_not_followed(tmp_path):
    """Neither one for the folder, nor one for all of them."""
    code = Code("a.py", {"a.py": b"1"})
    name = unpack(code, tmp_path / "first").name
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / name).symlink_to(tmp_path / "first" / name)
    assert unpack(code, tmp_path / "second") != tmp_path / "second" / name
    (tmp_path / "third").symlink_to(tmp_path / "second")
    with pytest.raises((FlowError, OSError)):
        unpack(code, tmp_path / "third")


HOSTILE = {
    "too large": {"a.py": bytes(MOST_BYTES + 1)},
    "too many": {f"{number}.py": b"" for number in range(10_001)},
    "no source": {"a.py": b"", "__pycache__/a.cpython-311.pyc": b""},
    "both a file and a folder": {"a.py": b"", "a.py/b.py": b""},
    "a name that is too long": {"a" * 300 + ".py": b""},
}


@pytest.mark.parametrize("files", HOSTILE.values(), ids=HOSTILE)
def test_hostile_code_leaves_nothing_behind(tmp_path, files):
    """It is refused before anything is written, or taken away again."""
    with pytest.raises((FlowError, OSError)):
        unpack(Code("a.py", files), tmp_path)
    assert not list(tmp_path.iterdir())


NAMES = ["./a.py", "a//b.py", "a/./b.py", "a/", "a\0.py", "..", "a/../b.py"]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_has_one_name_only(name):
    """Another name for it is refused, whatever it leads to."""
    with pytest.raises(RecordError, match="no source code"):
        Code.unpack(Code("a.py", {name: b""}).pack())


def test_files_are_compared_as_files(tmp_path):
    """A pipe in the place of one would never end."""
    os.mkfifo(tmp_path / "a.py")
    assert not is_there(Code("a.py", {"a.py": b""}), tmp_path)


async def test_code_that_is_not_what_was_kept_is_refused(folder, store):
    """Places of secrets that do not fit are an error, and no other text is run."""
    flow = load_file(folder / "sent_flow.py").Sent
    found = CodeFiles("all").find(flow, ["swordfish"])
    code = Code.unpack(found.packed)
    assert found.hidden is not None
    assert code.with_hidden(found.hidden).files["sent_flow.py"].decode() == FLOW
    for wrong in ({"sent_flow.py": [(3, b"x")]}, {"other.py": [(0, b"x")]}):
        with pytest.raises(ValueError, match="no asterisks"):
            code.with_hidden(wrong)


def test_files_of_python_and_of_this_package_do_not_travel(folder):
    """Even if they lie below the flow's folder, as in a home directory."""
    from asyncflow.flow.imported_files import ImportedFiles

    module = load_file(folder / "sent_flow.py")
    found = ImportedFiles().below("/", module)
    assert {name.rpartition("/")[2] for name in found} >= {"sent_flow.py", "sent_late.py"}
    assert not [name for name in found if "asyncflow/" in name or "/os.py" in name]


def test_a_store_that_is_not_on_the_machine_is_told(store):
    """Also if another store is in its place there: nothing is written to that."""
    opening = Opening(1, str(store), "Sent", "1795472682985927", ("", (), {}))
    for make in (False, True):
        if make:
            Layout.open(store, create=True)
        with pytest.raises(StoreError, match="share the folder with all nodes"):
            check_store_here(opening)
