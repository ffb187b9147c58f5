"""`@secrets` on real workers: where values come from, and that none of them is kept anywhere."""

from __future__ import annotations

import os

import pytest

from asyncflow import Engine, FlowSpec, environment, isolate, secrets, step
from asyncflow.errors import FlowError, GraphError
from asyncflow.flow.graph_reader import read_graph
from asyncflow.flow.step_options import options_of
from asyncflow.flow.step_secrets import secret_variables


@pytest.fixture(scope="module")
async def engine(tmp_path_factory):
    """An open engine, for all tests of this file."""
    async with Engine(store=tmp_path_factory.mktemp("secrets"), workers=1) as opened:
        yield opened


def hidden(word):
    """A value that stands nowhere in this file."""
    return "-".join(word[::-1])


def flow_with(*sources):
    """A flow whose class is stored with its run, since it is made here."""

    class Secretive(FlowSpec):
        @secrets(sources=sources)
        @step
        def start(self):
            names = ("SECRET_GIVEN", "SECRET_READ", "SECRET_TAKEN")
            self.lengths = [len(os.environ.get(name, "")) for name in names]
            self.next(self.end)

        @isolate
        @secrets(sources=["environment.SECRET_TAKEN"])
        @step
        async def end(self):
            self.later = ["SECRET_GIVEN" in os.environ, len(os.environ["SECRET_TAKEN"])]

    return Secretive


async def test_no_value_is_kept_in_the_store(engine, tmp_path, monkeypatch):
    """Nor in the journal, in a class that is stored with its run, in a log or in a message."""
    values = [hidden(word) for word in ("inline", "filed", "taken")]
    file = tmp_path / "database.env"
    file.write_text(f"# note\n\nexport SECRET_READ='{values[1]}'\n", encoding="utf-8")
    monkeypatch.setenv("SECRET_TAKEN", values[2])
    inline = {"type": "inline", "id": "x", "options": {"env_vars": {"SECRET_GIVEN": values[0]}}}
    run = await engine.run(flow_with(inline, f"file.{file}", "environment.SECRET_TAKEN"))
    assert run["start"].task.data.lengths == [len(value) for value in values]
    assert run.data.later == [False, len(values[2])]
    files = [each for each in engine.settings.store.rglob("*") if each.is_file()]
    assert files
    for each in files:
        content = each.read_bytes()
        assert not [value for value in values if value.encode() in content], each
    assert not [value for value in values if value in repr(run.graph)]


async def test_the_graph_tells_types_and_ids(tmp_path):
    """Not the options, which may have values."""
    inline = {"type": "inline", "id": "login", "options": {"env_vars": {"A": "1"}}}
    options = read_graph(flow_with(inline, "file.a.env"))["start"].options
    assert options["secrets"] == [
        {"type": "inline", "id": "login"},
        {"type": "file", "id": "a.env"},
    ]


async def test_a_source_that_cannot_be_read_is_an_error_before_the_run(engine):
    """It names the step and the source."""
    with pytest.raises(FlowError, match=r"environment\.NOWHERE of step 'start' is not there"):
        await engine.run(flow_with("environment.NOWHERE"))
    with pytest.raises(
        FlowError, match=r"file\.nowhere\.env of step 'start' cannot be read: No such"
    ):
        await engine.run(flow_with("file.nowhere.env"))
    with pytest.raises(FlowError, match="unknown type: there are environment, file, inline"):
        await engine.run(flow_with("vault.thing"))


def variables(*sources, environ=(), **more):
    """What a step with these sources gets."""

    @secrets(sources=sources, **more)
    @environment(vars={"KNOWN": "known"})
    def method(self):
        """The user's."""

    options = options_of(method)
    assert options is not None
    return secret_variables("train", options, dict(environ))


def inline(**env_vars):
    """A source with these variables."""
    return {"type": "inline", "options": {"env_vars": env_vars}}


def test_files_are_read_in_three_forms(tmp_path):
    """Lines, JSON, or all of the text as one value."""
    (tmp_path / "a.json").write_text('{"A": "x", "B": 2}', encoding="utf-8")
    (tmp_path / "b").write_text("whole text\n", encoding="utf-8")
    (tmp_path / "c").write_text("no line of variables\n", encoding="utf-8")
    assert variables(f"file.{tmp_path}/a.json") == {"A": "x", "B": "2"}
    whole = {"type": "file", "id": f"{tmp_path}/b", "options": {"env_var": "ALL"}}
    assert variables(whole) == {"ALL": "whole text"}
    with pytest.raises(FlowError, match="line 1 is not of the form NAME=value") as caught:
        variables(f"file.{tmp_path}/c")
    assert "no line" not in str(caught.value)


def test_variables_of_the_program_are_taken_under_another_name():
    """As `env_vars` says."""
    renamed = {"type": "environment", "options": {"env_vars": {"HERE": "THERE"}}}
    assert variables(renamed, environ={"THERE": "v"}) == {"HERE": "v"}


def test_a_variable_that_is_there_is_replaced_only_if_that_is_allowed():
    """Of the program, of `@environment` or of another source; the message has no value."""
    for given in ([inline(KNOWN="s3")], [inline(P="s3")], [inline(Q="s2"), inline(Q="s3")]):
        with pytest.raises(FlowError, match="allow_override=True") as caught:
            variables(*given, environ={"P": "p"})
        assert "s3" not in str(caught.value)
        assert variables(*given, environ={"P": "p"}, allow_override=True)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (inline(A=3), "no text"),
        (inline(**{"A=": "x"}), "name cannot be used"),
        ({"type": "inline", "id": "x"}, "no option `env_vars`"),
        ("nothing", "is written TYPE.ID"),
        (3, "is text, TYPE.ID, or a dict"),
        ({"type": "inline", "options": 3}, "are a dict"),
    ],
)
def test_sources_that_make_no_sense_are_refused(source, said):
    """Each with its reason."""
    with pytest.raises(FlowError, match=said):
        variables(source)


def test_secrets_need_sources_and_a_process_of_their_own():
    """An async step shares its process with others."""
    with pytest.raises(FlowError, match="takes sources"):
        secrets()

    class Shares(FlowSpec):
        @secrets(sources=["environment.HOME"])
        @step
        async def start(self):
            self.next(self.end)

        @step
        def end(self):
            pass

    with pytest.raises(GraphError, match="@secrets, but its tasks run side by side"):
        read_graph(Shares)
