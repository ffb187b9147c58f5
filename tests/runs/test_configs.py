"""Configurations, projects and included files on real workers, and how they are given."""

from __future__ import annotations

import asyncio
import os
import pickle
from pathlib import Path
from typing import Any

import click
import pytest

from asyncflow import (
    Config,
    ConfigValue,
    FlowSpec,
    IncludeFile,
    NBRunner,
    Parameter,
    config_expr,
    current,
    environment,
    project,
    pyproject_toml_parser,
    requirements_txt_parser,
    retry,
    secrets,
    step,
    user_step_decorator,
)
from asyncflow.cli.command_table import invoke
from asyncflow.cli.run_commands import make_check, make_resume, make_run
from asyncflow.errors import ParameterError, RunFailedError
from asyncflow.flow.graph_reader import prepare, read_graph
from asyncflow.flow.parameter_values import resolve_parameters
from asyncflow.flow.step_options import options_of
from asyncflow.store import open_store


@user_step_decorator
def marked(step_name, flow, inputs=None, attributes=None):
    """Keeps its argument."""
    flow.mark = attributes["mark"]
    yield


@project(name=config_expr("settings.project"))
class Configured(FlowSpec):
    """Uses its configuration wherever it can be used."""

    settings = Config(
        "settings",
        default_value={"times": 1, "items": [1, 2], "project": "shop", "env": {"K": "v"}},
        help="what to do",
    )
    size = Parameter("size", default=config_expr("settings.times * 10"))
    fails = Parameter("fails", default=True)

    @retry(times=settings.times, seconds=0)
    @marked(mark=settings.env)
    @environment(vars={"WORD": config_expr("settings.env['K'] + '!'")})
    @step
    def start(self):
        if current.retry_count < self.settings.times:
            raise ValueError(current.retry_count)
        self.attempts = current.retry_count + 1
        self.word = os.environ["WORD"]
        self.kept = self.settings.env
        self.settings["items"].append(3)
        self.parameters = (current.parameter_names, type(current.parameters.settings).__name__)
        self.next(self.end)

    @step
    def end(self):
        self.items = self.settings["items"]
        self.place = (current.project_flow_name, current.is_production, current.is_user_branch)
        if self.fails and current.origin_run_id is None:
            raise ValueError(self.items)


class Required(FlowSpec):
    """Needs a configuration."""

    settings = Config("settings", required=True)
    other = Config("other", plain=True, parser="json.loads", default_value="[1]")

    @step
    def start(self):
        self.other_one = self.other
        self.next(self.end)

    @step
    def end(self):
        pass


class Included(FlowSpec):
    """Reads files."""

    text = IncludeFile("text")
    data = IncludeFile("data", is_text=False)

    @step
    def start(self):
        self.lengths = (len(self.text), len(self.data))
        self.next(self.end)

    @step
    def end(self):
        self.ends = (self.text[-1], self.data[-1])


def settings(times, word="v"):
    """A configuration for `Configured`."""
    return {"times": times, "items": [1, 2], "project": "shop", "env": {"K": word}}


async def test_runs_with_other_configurations_go_on_beside_each_other(engine):
    """Decorators, parameters and steps of each have the values of its own."""
    runs = await asyncio.gather(
        engine.run(Configured, fails=False),
        engine.run(Configured, fails=False, settings=settings(3, "w")),
    )
    told = [(run.data.attempts, run.data.size, run.data.word, run.data.mark.K) for run in runs]
    assert told == [(2, 10, "v!", "v"), (4, 30, "w!", "w")]
    assert [run.parameters.settings["times"] for run in runs] == [1, 3]
    assert type(runs[0].parameters.settings) is dict
    assert type(runs[0].data.kept) is ConfigValue


async def test_a_change_within_a_configuration_ends_with_its_task(engine):
    """A list in it is the task's own copy."""
    run = await engine.run(Configured, fails=False)
    assert run.data.items == [1, 2]
    assert run.data.parameters == (["settings", "size", "fails"], "ConfigValue")


async def test_a_resumed_run_has_the_configuration_and_the_branch_of_its_origin(engine):
    """Neither is given again."""
    with pytest.raises(RunFailedError):
        await engine.options(branch="dev").run(Configured, settings=settings(2, "o"))
    run = await engine.resume(Configured)
    assert (run.data.word, run.parameters.settings["times"]) == ("o!", 2)
    assert run.data.place == ("shop.test.dev.Configured", False, False)
    assert {"project:shop", "project_branch:test.dev"} <= run.system_tags


async def test_production_is_a_branch_of_its_own(engine):
    """It may have branches, too."""
    run = await engine.options(branch="b", production=True).run(Configured, fails=False)
    assert run.data.place == ("shop.prod.b.Configured", True, False)


def test_a_runner_gives_configurations_and_the_branch(tmp_path):
    """As options of the runner, for all of its runs."""
    (tmp_path / "given.json").write_text('{"a": 1}', encoding="utf-8")
    options: dict[str, Any] = {
        "config": [("settings", "given.json")],
        "config_value": {"other": [2]},
    }
    with NBRunner(Required, cwd=str(tmp_path), workers=1, **options) as runner:
        run = runner.run().run
    assert (run.parameters.settings, run.data.other_one) == ({"a": 1}, [2])


async def test_a_class_without_a_file_has_its_configuration_too(engine):
    """It is stored with the run, and configured where it is loaded."""

    class Local(FlowSpec):
        settings = Config("settings", default_value={"times": 1})

        @retry(times=settings.times, seconds=0)
        @step
        def start(self):
            self.seen = (current.retry_count, self.settings.times)
            if not current.retry_count:
                raise ValueError
            self.next(self.end)

        @step
        def end(self):
            pass

    run = await engine.run(Local, settings='{"times": 2}')
    assert run.data.seen == (1, 2)


async def test_a_branch_without_a_project_is_refused(engine):
    """So is one for a flow whose branch is fixed, and a name that cannot be one."""
    fixed = project(name="shop", branch="b1")(type("Fixed", (Required,), {}))
    given: dict[str, object] = {"settings": {}}
    with pytest.raises(ParameterError, match="is in no project"):
        await engine.options(branch="dev").run(Required, **given)
    with pytest.raises(ParameterError, match="has the branch 'b1' in its @project"):
        await engine.options(branch="dev").run(fixed, **given)
    with pytest.raises(ParameterError, match="a branch has letters"):
        await engine.options(branch="a b").run(Configured)


# --- how values are given ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, r"the config 'settings' is required: give it as settings=\.\.\. or "),
        (
            {"settings": "{"},
            r"the config 'settings', line 1, column 2: is not JSON: Expecting",
        ),
        ({"settings": Path("bad.json")}, r"bad\.json:2:1: is not JSON: Expecting value"),
        ({"settings": Path("bad.toml")}, r"bad\.toml: is not TOML: Invalid value \(at line 1"),
        ({"settings": Path("none.json")}, r"none\.json cannot be read: No such file"),
        (
            {"settings": "[1]"},
            r"it holds list \[1\], and a config is a dict; plain=True",
        ),
        ({"settings": {}, "setings": {}}, r"has no parameter 'setings'"),
        ({"settings": {}, "other": "]"}, r"the config 'other', line 1, column 1: is not JSON"),
    ],
)
async def test_what_is_no_configuration_is_refused_in_one_line(
    engine, tmp_path, monkeypatch, given, message
):
    """It names the file and the place, and no run is made."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.json").write_text("[\n", encoding="utf-8")
    (tmp_path / "bad.toml").write_text("a =\n", encoding="utf-8")
    with pytest.raises(ParameterError, match=message) as caught:
        await engine.start(Required, **given)
    assert "\n" not in str(caught.value)
    assert not open_store(engine.settings.store).runs("Required")


@pytest.mark.parametrize(
    ("environ", "times"),
    [
        ({"ASYNCFLOW_FLOW_CONFIG_VALUE": '{"settings": {"times": 5}}'}, 5),
        ({"ASYNCFLOW_FLOW_CONFIG": '{"settings": "some.toml"}'}, 6),
    ],
)
def test_the_environment_gives_configurations(tmp_path, monkeypatch, environ, times):
    """As values, and as files; a file is read by its ending if there is no parser."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "some.toml").write_text("times = 6\n", encoding="utf-8")
    monkeypatch.setattr(os, "environ", environ)
    assert prepare(Required, None, environ)(use_cli=False).settings.times == times


def command(make, flow, *arguments):
    """The flow as a command has prepared it, and the options."""
    name = make.__name__.removeprefix("make_")
    context = make(flow, "flow.py").make_context(name, list(arguments))
    return context.meta["asyncflow.flow"], context.params


def test_the_command_line_gives_configurations(tmp_path):
    """Before the flow's parameters are known, as a file or as a text."""
    file = tmp_path / "given.json"
    file.write_text('{"times": 7, "project": "shop", "env": {"K": ""}}', encoding="utf-8")
    flow, _ = command(make_run, Configured, "--size", "1", "--config", "settings", str(file))
    assert read_graph(flow)["start"].options["retry"]["times"] == 7
    assert resolve_parameters(flow, {}, {})["size"] == 70
    flow, _ = command(make_check, Required, "--config-value", "settings", '{"a": 1}')
    assert flow(use_cli=False).settings.a == 1


def test_show_draws_a_flow_as_it_is_configured(capsys, store):
    """The options before the command count for it, too."""
    arguments = ["--config-value", "settings", '{"a": 1}', "show"]
    assert invoke(arguments, flow=Required, script="flow.py") == 0
    assert "Needs a configuration." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (make_run, ("--config-value", "setting", "{}"), "has no config 'setting'; did you mean"),
        (make_check, (), "the config 'settings' is required"),
        (
            make_resume,
            ("--config-value", "settings", "{}"),
            "the configs are those of the earlier run",
        ),
    ],
)
def test_a_wrong_option_is_refused(make, arguments, message):
    """With what it should be."""
    with pytest.raises((ParameterError, click.UsageError), match=message):
        command(make, Required, *arguments)


def test_help_lists_configurations_even_if_one_is_missing(capsys):
    """It is where somebody learns what to give."""
    with pytest.raises(click.exceptions.Exit):
        command(make_run, Required, "--help")
    printed = capsys.readouterr().out
    assert "Configs of Required" in printed
    assert "settings  [required]" in printed
    with pytest.raises(click.exceptions.Exit):
        command(make_run, Configured, "--help")
    assert "--branch NAME" in capsys.readouterr().out


# --- values and expressions -------------------------------------------------------------------


def test_a_value_cannot_be_changed_and_is_a_dict():
    """It is pickled as what it is, and gives a plain copy."""
    value = ConfigValue({"a": {"b": [{"c": 1}]}, "items": 2})
    assert (value.a.b[0].c, value["items"], value) == (1, 2, {"a": {"b": [{"c": 1}]}, "items": 2})
    changes = [
        lambda: setattr(value, "a", 1),
        lambda: value.update(a=1),
        lambda: value.pop("a"),
        lambda: value.a.__delitem__("b"),
    ]
    for change in changes:
        with pytest.raises(TypeError, match="immutable"):
            change()
    with pytest.raises(AttributeError, match="has no 'x'; it has a, items"):
        _ = value.x
    again = pickle.loads(pickle.dumps(value))
    assert (type(again), type(again.a.b[0]), again) == (ConfigValue, ConfigValue, value)
    assert type(value.to_dict()["a"]["b"][0]) is dict


def test_an_expression_has_no_value_in_the_class_body():
    """A condition, a text and a loop say so, instead of going the wrong way."""
    config = Config("settings")
    for use in (lambda: bool(config.debug), lambda: f"{config.name}", lambda: [*config.items]):
        with pytest.raises(TypeError, match=r"settings\.\w+ has no value before a run is started"):
            use()


def test_a_configuration_has_a_name_of_its_own():
    """No parameter and no other configuration has it, and it can be a keyword."""

    class Twins(FlowSpec):
        settings = Config("size")
        size = Parameter("size")

    class Tags(FlowSpec):
        tags = Config("tags")

    with pytest.raises(ParameterError, match="'size' and 'settings' are both called 'size'"):
        read_graph(Twins)
    with pytest.raises(ParameterError, match="a config cannot be called 'tags'"):
        read_graph(Tags)


def test_what_may_be_a_secret_is_not_pickled_with_a_decorator_that_waits():
    """The engine alone evaluates it, and a class without a file is stored with its run."""

    class Secret(FlowSpec):
        settings = Config("settings", default_value={"from": "environment.PATH", "times": 2})

        @secrets(sources=[settings["from"]])
        @retry(times=settings.times)
        @environment(vars={"A": settings.times, "TOKEN": "a secret"})
        @step
        def start(self):
            self.next(self.end)

        @step
        def end(self):
            pass

    options = read_graph(Secret)["start"].options
    assert options["secrets"] == [{"type": "environment", "id": "PATH"}]
    assert options["environment"] == ["A", "TOKEN"]
    stored = pickle.dumps(options_of(Secret.start))
    assert b"secret" not in stored.replace(b"secrets", b"")
    assert [call.decorator.__name__ for call in pickle.loads(stored).delayed] == ["retry"]


def test_an_expression_that_fails_names_its_line():
    """It is evaluated long after the line has run."""

    class Wrong(FlowSpec):
        settings = Config("settings", default_value={"a": 1})
        size = Parameter("size", default=settings.nowhere)

    with pytest.raises(ParameterError, match=r"test_configs.py:\d+: settings.nowhere cannot be"):
        read_graph(Wrong)


def test_files_that_list_packages_are_read():
    """As `@pypi` takes them."""
    assert requirements_txt_parser("a==1.2\nb>=2,<3 # why\n\nc[x]\n") == {
        "packages": {"a": "1.2", "b": ">=2,<3", "c[x]": ""}
    }
    text = '[project]\nrequires-python = ">=3.11"\ndependencies = ["a == 1"]\n'
    assert pyproject_toml_parser(text) == {"packages": {"a": "1"}, "python": ">=3.11"}
    with pytest.raises(ValueError, match="no name of a package"):
        requirements_txt_parser("-r other.txt")


# --- parameters and files ---------------------------------------------------------------------


def test_a_default_is_a_value_of_a_required_parameter():
    """As in Metaflow."""

    class Both(FlowSpec):
        size = Parameter("size", required=True, default=3)

    assert resolve_parameters(Both, {}, {}) == {"size": 3}


def test_a_parameter_may_be_given_several_times():
    """Its value is a tuple; white space separates the items in the environment."""

    class Several(FlowSpec):
        sizes = Parameter("sizes", type=int, multiple=True, default=[1, 2])
        names = Parameter("names", multiple=True)

    assert resolve_parameters(Several, {}, {}) == {"sizes": (1, 2), "names": ()}
    environ = {"ASYNCFLOW_RUN_SIZES": "3 4"}
    assert resolve_parameters(Several, {"names": ["a"]}, environ) == {
        "sizes": (3, 4),
        "names": ("a",),
    }
    with pytest.raises(ParameterError, match="takes tuple of int, not 5"):
        resolve_parameters(Several, {"sizes": 5}, {})
    with pytest.raises(ParameterError, match="has `separator` and `multiple`"):
        Parameter("x", multiple=True, separator=",")


async def test_a_large_file_is_stored_as_it_is(engine, tmp_path):
    """Text and bytes are those of the file, also where it is not held in memory."""
    (tmp_path / "text").write_text("ü" * 1_500_000 + "x", encoding="utf-8")
    (tmp_path / "data").write_bytes(b"\xff" * 2_500_000 + b"\x07")
    run = await engine.run(Included, text=tmp_path / "text", data=tmp_path / "data")
    assert (run.data.lengths, run.data.ends) == ((1_500_001, 2_500_001), ("x", 7))
    assert run.data.text == "ü" * 1_500_000 + "x"


async def test_a_large_file_that_is_not_text_is_refused(engine, tmp_path):
    """Wherever the wrong byte is; nothing is left of the run."""
    (tmp_path / "text").write_bytes(b"x" * 2_000_000 + b"\xff")
    before = open_store(engine.settings.store).runs("Included")
    with pytest.raises(ParameterError, match="text is not text in utf-8"):
        await engine.start(Included, text=tmp_path / "text")
    assert open_store(engine.settings.store).runs("Included") == before


def test_a_parser_sees_the_content_before_the_run(tmp_path):
    """What it refuses is refused then, and the content is what is kept."""

    class Parsed(FlowSpec):
        table = IncludeFile("table", parser="json.loads")

    (tmp_path / "good").write_text('{"a": 1}', encoding="utf-8")
    (tmp_path / "bad").write_text("{", encoding="utf-8")
    assert resolve_parameters(Parsed, {"table": tmp_path / "good"}, {}) == {"table": '{"a": 1}'}
    with pytest.raises(ParameterError, match="the parser of parameter 'table' refuses"):
        resolve_parameters(Parsed, {"table": tmp_path / "bad"}, {})
