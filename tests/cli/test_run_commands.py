"""The commands on a flow, without running one: options, help, check, graph, errors."""

from __future__ import annotations

import itertools
import re
import sys
from typing import TYPE_CHECKING

import pytest

from asyncflow.cli.command_table import invoke
from asyncflow.cli.flow_options import given_parameters, options_of
from asyncflow.cli.run_commands import make_run
from asyncflow.flow.loader import load_flow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

GOOD = '''
from asyncflow import FlowSpec, JSONType, Parameter, step

class GoodFlow(FlowSpec):
    """Learns something.

    And tells about it.
    """

    alpha = Parameter("alpha", default=0.5, help="How much.")
    learning_rate = Parameter("learning_rate", type=float, required=True)
    names = Parameter("names", separator=",", default="a,b")
    debug = Parameter("debug", default=False)
    config = Parameter("config", type=JSONType, default="{}", show_default=False)
    seed = Parameter("seed", default=lambda: 7)

    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        pass
'''
BAD = """
from asyncflow import FlowSpec, step

class BadFlow(FlowSpec):
    @step
    def start(self):
        self.next(self.nowhere)

    @step
    def end(self):
        pass
"""

_numbers = itertools.count()
_MODULE = "flow_of_the_cli_"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """Writes a flow file under a name that no other test has; its module is forgotten later."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)

    def write(text: str) -> str:
        path = tmp_path / f"{_MODULE}{next(_numbers)}.py"
        path.write_text(text)
        return path.name

    yield write
    for name in [name for name in sys.modules if name.startswith(_MODULE)]:
        del sys.modules[name]


def error_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command that is used wrongly says; its exit status is 2."""
    assert invoke(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


def parse(file: str, *arguments: str) -> dict[str, str]:
    """What `run` would give the flow as parameters."""
    flow = load_flow(file)
    context = make_run(flow, "flow.py").make_context("run", list(arguments))
    return given_parameters(flow, context.params)


# --- parameters -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        (["--alpha", "2"], {"alpha": "2"}),
        (["--alpha=2"], {"alpha": "2"}),
        (["--alpha", "-2"], {"alpha": "-2"}),
        (["--learning_rate", "1"], {"learning_rate": "1"}),
        (["--learning-rate=1"], {"learning_rate": "1"}),
        (["--names", ""], {"names": ""}),
        (["--names=x,y"], {"names": "x,y"}),
        (["--debug"], {"debug": "true"}),
        (["--debug", "--alpha", "1"], {"debug": "true", "alpha": "1"}),
        (["--debug", "false"], {"debug": "false"}),
        (["--config", '{"a": [1]}'], {"config": '{"a": [1]}'}),
        (["--alpha", "1", "--alpha", "2"], {"alpha": "2"}),
        ([], {}),
    ],
)
def test_parameters_are_options(file, arguments, given) -> None:
    """A parameter is given as `--name value` or `--name=value`, with underscores or dashes."""
    assert parse(file(GOOD), *arguments) == given


def test_unknown_parameter_is_wrong_usage(file, capsys) -> None:
    """A misspelt parameter is told, with the right spelling."""
    error = error_of(capsys, "run", file(GOOD), "--alpah", "1")
    assert "--alpah" in error
    assert "--alpha" in error


def test_parameter_without_value_is_wrong_usage(file, capsys) -> None:
    """`--alpha` alone needs a value."""
    assert "'--alpha' requires an argument" in error_of(capsys, "run", file(GOOD), "--alpha")


def test_clash_with_an_option_is_told(file, capsys) -> None:
    """A parameter with the name of one of the command's own options is an error that says so."""
    text = GOOD.replace('Parameter("alpha"', 'Parameter("workers"')
    error = error_of(capsys, "run", file(text), "--learning-rate", "1")
    assert "the parameter 'workers' of GoodFlow has the name of an option" in error


def test_parameter_named_like_an_argument_of_click_works(file) -> None:
    """Parameters called `file` or `step` do not mix with the command's own values."""
    text = GOOD.replace('Parameter("alpha"', 'Parameter("file"')
    text = text.replace('Parameter("names"', 'Parameter("step"')
    assert parse(file(text), "--file", "x", "--step", "y") == {"step": "y", "file": "x"}


def test_file_comes_before_parameters(file, capsys) -> None:
    """Parameters before FILE cannot be understood, and the error says what to do."""
    error = error_of(capsys, "run", "--alpha", "1", file(GOOD))
    assert "FILE comes before the flow's parameters" in error


def test_own_options_may_come_before_the_file(file, capsys) -> None:
    """The command's own options may stand anywhere."""
    assert invoke(["run", "--workers", "2", file(GOOD), "--help"]) == 0
    assert "--learning_rate FLOAT" in capsys.readouterr().out


# --- help -------------------------------------------------------------------------------------


def test_help_lists_parameters(file, capsys) -> None:
    """`run FILE --help` tells of each parameter its type, help, default and variable."""
    assert invoke(["run", file(GOOD), "--help"]) == 0
    words = " ".join(capsys.readouterr().out.split())
    assert "Learns something. And tells about it." in words
    assert "--alpha FLOAT How much. [default: 0.5; env: ASYNCFLOW_RUN_ALPHA]" in words
    assert "--learning_rate FLOAT [required; env: ASYNCFLOW_RUN_LEARNING_RATE]" in words
    assert "--names STR,STR,… [default: a,b;" in words
    assert "--config JSON [env: ASYNCFLOW_RUN_CONFIG]" in words
    assert "--seed STR [default: found out when the run starts;" in words
    assert "--workers, --max-workers N" in words


def test_help_of_a_flow_without_parameters(file, capsys) -> None:
    """A flow without parameters says so."""
    assert invoke(["run", file(BAD), "--help"]) == 0
    assert "It has none." in capsys.readouterr().out


@pytest.mark.parametrize(
    "command", ["run", "resume", "check", "graph", "runs", "show", "logs", "dump", "events"]
)
def test_every_command_has_help(command, capsys) -> None:
    """Every command explains itself, without a flow and without a store."""
    assert invoke([command, "--help"]) == 0
    assert f"Usage: asyncflow {command}" in capsys.readouterr().out


def test_help_lists_the_commands(capsys) -> None:
    """`asyncflow --help` names every command with what it does."""
    assert invoke(["--help"]) == 0
    assert re.search(r"^  resume +Resume a run where", capsys.readouterr().out, re.MULTILINE)


def test_version(capsys) -> None:
    """`asyncflow --version` tells it."""
    assert invoke(["--version"]) == 0
    assert capsys.readouterr().out.startswith("asyncflow 0.")


# --- check and graph --------------------------------------------------------------------------


def test_check_of_a_good_flow(file, capsys) -> None:
    """A flow that can be run is said to be so, with exit status 0."""
    assert invoke(["check", file(GOOD)]) == 0
    assert capsys.readouterr().out == "GoodFlow can be run: 2 steps.\n"


def test_check_of_a_bad_flow(file, capsys) -> None:
    """A flow that cannot be run is an error that names file, line and step."""
    name = file(BAD)
    error = error_of(capsys, "check", name)
    assert f"{name}:6: step 'start' leads to 'nowhere'" in error


@pytest.mark.parametrize(
    ("picture", "words"),
    [("text", "start -> end"), ("dot", '"start" -> "end";'), ("mermaid", "flowchart")],
)
def test_graph(file, capsys, picture, words) -> None:
    """`graph` draws the steps for people, for Graphviz and for Markdown."""
    assert invoke(["graph", file(GOOD), "--format", picture]) == 0
    assert words in capsys.readouterr().out


# --- which flow -------------------------------------------------------------------------------


def test_missing_file(capsys) -> None:
    """A file that is not there is wrong usage."""
    assert "there is no file nowhere.py" in error_of(capsys, "check", "nowhere.py")


def test_folder_in_place_of_a_file(tmp_path, monkeypatch, capsys) -> None:
    """A folder is named as one, and no traceback of an import is shown."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my-flows").mkdir()
    for folder in (".", "my-flows", f"{tmp_path}:Flow"):
        error = error_of(capsys, "check", folder)
        assert "is a folder; name the file in it" in error
        assert "Traceback" not in error


def test_misspelt_command(capsys) -> None:
    """A command that does not exist names the one that is close."""
    error = error_of(capsys, "rum", "flow.py")
    assert "there is no command 'rum'; did you mean 'run'?" in error


def test_empty_store_is_wrong_usage(file, tmp_path, monkeypatch, capsys) -> None:
    """`--store ""` is refused, and nothing is written into the working directory."""
    path = tmp_path / file(GOOD)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    for arguments in (["run", str(path)], ["runs"], ["limit", "list"]):
        assert "it is empty; name a folder" in error_of(capsys, *arguments, "--store", "")
    assert not list((tmp_path / "empty").iterdir())


def test_missing_argument(capsys) -> None:
    """Without FILE a command on a flow says what it lacks."""
    assert "Missing argument 'FILE[:Flow]'" in error_of(capsys, "run")


def test_several_flows_have_to_be_named(file, capsys) -> None:
    """With two flows in a file, the error names them, and FILE:Flow chooses one."""
    name = file(GOOD + BAD)
    error = error_of(capsys, "check", name)
    assert "GoodFlow" in error
    assert "BadFlow" in error
    assert invoke(["check", f"{name}:GoodFlow"]) == 0


def test_dotted_module(tmp_path, monkeypatch, capsys) -> None:
    """FILE may be the dotted name of a module."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    package = tmp_path / "package_of_the_cli"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "flows.py").write_text(GOOD)
    assert invoke(["check", "package_of_the_cli.flows:GoodFlow"]) == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import no_such_module_anywhere", "ModuleNotFoundError"),
        ("def broken(:", "SyntaxError"),
        ("raise SystemExit(0)", "SystemExit"),
    ],
)
def test_file_that_cannot_be_imported(file, capsys, text, words) -> None:
    """A flow file that raises when it is imported shows the user's own traceback."""
    name = file(text)
    error = error_of(capsys, "check", name)
    assert words in error
    assert name in error
    assert "importlib" not in error
    assert "loading.py" not in error


def test_options_are_made_of_parameters_alone(file) -> None:
    """A flow without parameters has no options."""
    assert options_of(load_flow(file(BAD))) == []


def test_a_resume_says_that_it_keeps_the_parameters(capsys, file) -> None:
    """Of those that it has not, the usual words are enough."""
    flow = str(file(GOOD))
    assert invoke(["resume", flow, "--alpha", "2"]) == 2
    assert "--alpha cannot be given: a resume goes on with" in capsys.readouterr().err
    assert invoke(["resume", flow, "--alfa", "2"]) == 2
    assert "No such option" in capsys.readouterr().err


def test_a_resume_makes_no_store(capsys, file, tmp_path) -> None:
    """There is nothing to resume in a new one."""
    for arguments in ([], ["--plan"]):
        store = tmp_path / "nowhere"
        assert invoke(["resume", str(file(GOOD)), *arguments, "--store", str(store)]) == 1
        assert f"there is no store at {store}; run a flow first" in capsys.readouterr().err
        assert not store.exists()
