"""The code of a run is kept with it, and two runs can be compared."""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import textwrap
import weakref

import pytest

from asyncflow import Engine, Run
from asyncflow._support.settings import Settings
from asyncflow.errors import RecordError
from asyncflow.flow.code_files import MOST_BYTES, Code, CodeFiles
from asyncflow.flow.loader import load_file
from asyncflow.store.layout import Layout
from asyncflow.store.maintenance.collect import collect
from tests.support.command_line import here

FLOW = """
import os
import kept_helper
import kept_parts.one
from asyncflow import FlowSpec, Parameter, step


class Kept(FlowSpec):
    alpha = Parameter("alpha", default=1)

    @step
    def start(self):
        self.constant = [1, 2, 3]
        self.doubled = kept_helper.double(self.alpha)
        self.next(self.end)

    @step
    def end(self):
        pass
"""


VARIABLES = '    @environment(vars={"TOKEN": "swordfish", "LEVEL": "3"})\n'


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A flow's folder, with modules that it imports and one that it does not."""
    files = {
        "kept_flow.py": FLOW,
        "kept_helper.py": "def double(x):\n    return 2 * x\n",
        "kept_parts/__init__.py": "",
        "kept_parts/one.py": "from kept_parts import two\n",
        "kept_parts/two.py": "NUMBER = 2\n",
        "kept_unused.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(textwrap.dedent(text))
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("kept_")]:
        del sys.modules[name]


async def two_runs(folder, store, keep="all"):
    """Two runs of the flow, its helper changed in between."""
    flow = load_file(folder / "kept_flow.py").Kept
    settings = Settings(store=store, workers=1, keep_code=keep)
    async with Engine(settings=settings) as engine:
        first = await engine.run(flow)
        again = await engine.run(flow)
        (folder / "kept_helper.py").write_text("def double(x):\n    return x + x\n")
        second = await engine.run(flow, alpha=2)
    return first, again, second


async def test_a_run_keeps_the_files_that_its_flow_imports(folder, store):
    """Those of the flow's folder; what is edited afterwards changes later runs only."""
    first, again, second = await two_runs(folder, store)
    assert first.code.script_name == "kept_flow.py"
    assert first.code.flowspec == FLOW
    assert sorted(first.code.files) == [
        "kept_flow.py",
        "kept_helper.py",
        "kept_parts/__init__.py",
        "kept_parts/one.py",
        "kept_parts/two.py",
    ]
    assert "2 * x" in first.code.files["kept_helper.py"]
    assert "x + x" in second.code.files["kept_helper.py"]
    assert first["start"].task.code.flowspec == FLOW
    refs = [next(iter(run.events())).code_ref for run in (first, again, second)]
    assert refs[0] == refs[1] != refs[2]


async def test_the_files_are_written_below_a_folder(folder, store, tmp_path):
    """Or given as an archive; nothing that is there is written over."""
    first, *_ = await two_runs(folder, store)
    target = first.code.extract(tmp_path / "out")
    assert (target / "kept_parts" / "two.py").read_text() == "NUMBER = 2\n"
    assert "kept_parts/two.py" in first.code.tarball.getnames()
    with pytest.raises(FileExistsError):
        first.code.extract(target)


def test_classes_that_are_made_for_each_run_leave_nothing_behind(folder):
    """What is kept of their code is kept by file, and not by class."""
    module = load_file(folder / "kept_flow.py")
    code, names = CodeFiles("all"), range(100)
    made = [type(f"Kept{n}", (module.Kept,), {"__module__": module.__name__}) for n in names]
    dead = [weakref.ref(each) for each in made]
    assert len({code.find(each).packed for each in made}) == 1
    del made
    gc.collect()
    assert not [each for each in dead if each() is not None]


def test_a_module_that_is_imported_later_belongs_to_the_next_run(folder):
    """What was found before is looked for again when more modules are there."""
    module = load_file(folder / "kept_flow.py")
    code = CodeFiles("all")
    assert "kept_unused.py" not in Code.unpack(code.find(module.Kept).packed).files
    vars(module)["later"] = importlib.import_module("kept_unused")
    assert "kept_unused.py" in Code.unpack(code.find(module.Kept).packed).files


def test_a_flow_in_a_package_keeps_the_whole_package(tmp_path, monkeypatch):
    """What it imports of the topmost package, wherever in it that is, and beside it."""
    files = {
        "kept_top/__init__.py": "",
        "kept_top/common.py": "NUMBER = 1\n",
        "kept_top/sub/__init__.py": "",
        "kept_top/sub/flow.py": """
            from asyncflow import FlowSpec, step
            import kept_beside
            from .. import common

            class Kept(FlowSpec):
                @step
                def start(self):
                    self.next(self.end)

                @step
                def end(self):
                    pass
        """,
        "kept_beside.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(textwrap.dedent(text))
    monkeypatch.syspath_prepend(tmp_path)
    module = load_file(tmp_path / "kept_top" / "sub" / "flow.py")
    code = Code.unpack(CodeFiles("all").find(module.Kept).packed)
    assert code.script == "kept_top/sub/flow.py"
    assert sorted(code.files) == sorted(files)
    for name in [name for name in sys.modules if name.startswith("kept_")]:
        del sys.modules[name]


@pytest.mark.parametrize(("keep", "names"), [("flow", ["kept_flow.py"]), ("none", None)])
async def test_the_user_has_a_say_in_it(folder, store, keep, names):
    """`keep_code` keeps less."""
    first, *_ = await two_runs(folder, store, keep)
    assert (first.code and list(first.code.files)) == names


async def test_a_file_that_is_too_large_is_named(folder, store):
    """And the others are kept."""
    (folder / "kept_helper.py").write_text(
        "def double(x):\n    return x\n" + "#" * MOST_BYTES + "\n"
    )
    flow = load_file(folder / "kept_flow.py").Kept
    async with Engine(store=store, workers=1) as engine:
        run = await engine.run(flow)
    assert run.code.left_out == ("kept_helper.py",)
    assert "kept_parts/one.py" in run.code.files


async def test_a_value_of_environment_is_hidden_in_the_code(folder, store):
    """Wherever it stands; what is too short for a secret stays."""
    (folder / "kept_helper.py").write_text("def double(x):\n    return 2 * x  # swordfish\n")
    secretive = FLOW.replace("    @step\n    def end", VARIABLES + "    @step\n    def end")
    (folder / "kept_flow.py").write_text(
        secretive.replace("import FlowSpec", "import environment, FlowSpec")
    )
    flow = load_file(folder / "kept_flow.py").Kept
    async with Engine(store=store, workers=1) as engine:
        run = await engine.run(flow)
    assert '"TOKEN": "******", "LEVEL": "3"' in run.code.flowspec
    assert run.code.files["kept_helper.py"].endswith("# ******\n")
    assert not [
        path for path in store.rglob("*") if path.is_file() and b"swordf" in path.read_bytes()
    ]


WRITTEN = [
    ("pass\nword", r'"pass\nword"'),
    ('quoted "word"', r'"quoted \"word\""'),
    ("back\\slash", r'"back\\slash"'),
    ("caf\xe9-word", r'"caf\u00e9-word"'),
    ("caf\xe9-word", "# coding: latin-1\n'caf\xe9-word'"),
    ("smile \U0001f600 word", r'{"json": "smile \ud83d\ude00 word"}'),
    ("swordfish", "('sword'\n    f'fish')"),
    ("swordfish", "'sword' + 'fish'"),
    ("swordfish", '"sword\\\nfish"'),
    ("first line\nsecond line", 'dedent("""\n    first line\n    second line\n""")'),
    ("swordfish\n", "swordfish"),
]


@pytest.mark.parametrize(("secret", "text"), WRITTEN)
def test_a_secret_is_hidden_however_it_is_written(secret, text):
    """With escapes, over several literals or lines, and in the encoding of its file."""
    code = Code("a.py", {"a.py": text.encode("latin-1"), "b.py": b"'other' 'word', swordfis"})
    hidden = code.without([secret])[0].files
    assert b"******" in hidden["a.py"]
    assert not [word for word in (b"word", b"line") if word in hidden["a.py"]]
    assert hidden["b.py"] == code.files["b.py"]


@pytest.mark.parametrize(
    ("secret", "text"),
    [
        ("a" + "'" * 40 + "bcd", "a" + "'" * 20_000),
        ("\\" * 40 + "bcd", "\\" * 5_000),
        ("r" * 40 + "bcd", "r''r" * 5_000),
        ("\n" * 40 + "bcd", "\n \t" * 5_000),
    ],
)
def test_looking_for_a_secret_ends_soon(secret, text):
    """In text that nearly matches in many ways, too."""
    code = Code("a.py", {"a.py": text.encode()})
    assert code.without([secret]) == (code, {})


async def test_two_runs_are_compared(folder, store):
    """Code, parameters, artifacts by hash and times."""
    first, _, second = await two_runs(folder, store)
    told = here("diff", first.pathspec, second.pathspec, "--store", store)
    assert "alpha: 1 -> 2" in told.stdout
    assert "start/doubled: changed" in told.stdout
    assert "-    return 2 * x" in told.stdout
    data = json.loads(
        here("diff", first.pathspec, second.pathspec, "--json", "--store", store).stdout
    )
    assert data["parameters"] == {"alpha": ["1", "2"]}
    assert data["artifacts"]["start"] == {
        "alpha": "changed",
        "constant": "same",
        "doubled": "changed",
    }
    assert list(data["code"]) == ["kept_helper.py"]


async def test_the_command_shows_the_code(folder, store):
    """The list of files, or one of them."""
    first, *_ = await two_runs(folder, store)
    assert "kept_parts/two.py" in here("code", first.pathspec, "--store", store).stdout
    shown = here("code", first.pathspec, "kept_helper.py", "--store", store)
    assert shown.stdout == "def double(x):\n    return 2 * x\n"
    refused = here("code", first.pathspec, "nothing.py", "--store", store)
    assert (refused.status, "there are kept_flow.py" in refused.stderr) == (2, True)


async def test_damaged_code_is_named(folder, store):
    """Verify finds it, and reading it says so."""
    first, *_ = await two_runs(folder, store)
    for blob in (store / "blobs").rglob("*"):
        if blob.is_file():
            blob.chmod(0o600)
            blob.write_bytes(blob.read_bytes()[:-1] + b"?")
    told = here("verify", "--store", store)
    assert told.status == 1
    assert "(the flow's source files)" in told.stdout + told.stderr
    refused = here("code", first.pathspec, "--store", store)
    assert f"the code of {first.pathspec}" in refused.stderr


async def test_a_collection_keeps_the_code(folder, store):
    """As long as a run refers to it."""
    first, _, second = await two_runs(folder, store)
    here("rm", second.pathspec, "--store", store)
    for path in store.rglob("*"):
        then = path.stat().st_mtime - 3 * 86_400
        os.utime(path, (then, then))
    removed = collect(Layout.open(store, create=False))
    assert removed.blobs.files == 1
    assert Run(first.pathspec, store=store).code.flowspec == FLOW


@pytest.mark.parametrize("name", ["../up.py", "/root.py", "a/../../b", ""])
def test_a_name_that_leads_out_of_the_folder_is_refused(name):
    """Whatever a damaged or hostile store says, nothing is written elsewhere."""
    with pytest.raises(RecordError, match="no source code"):
        Code.unpack(Code("flow.py", {name: b""}).pack())
