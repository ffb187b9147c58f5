"""`asyncflow tag`: what it prints, what it changes, and what it refuses."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Protocol

import pytest

from asyncflow import FlowSpec, Run, step
from asyncflow.cli.command_table import invoke
from tests.client.test_client import linear

if TYPE_CHECKING:
    from pathlib import Path


class Tag(Protocol):
    """Runs `asyncflow tag` with these arguments; what it printed on stdout."""

    def __call__(self, *arguments: str, status: int = 0) -> str: ...


class F(FlowSpec):
    """A flow with the name of the runs here."""

    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        pass


@pytest.fixture
def tag(store: Path, capsys: pytest.CaptureFixture[str]) -> Tag:
    """The command, in a store with two runs."""
    linear(store, "1", tags=("old",))
    linear(store, "2", tags=("a", "old"))

    def call(*arguments: str, status: int = 0) -> str:
        assert invoke(["tag", *arguments]) == status
        return capsys.readouterr().out

    return call


def own(run_id: str) -> list[str]:
    """A run's own tags."""
    return sorted(Run(f"F/{run_id}").user_tags)


def test_tags_are_added_removed_and_replaced(tag):
    """And printed, with those of the system."""
    assert tag("add", "--run-id", "F/2", "b", "c") == "F/2: a b c old runtime:dev user:somebody\n"
    assert own("2") == ["a", "b", "c", "old"]
    tag("remove", "--run-id", "F/2", "a", "b", "nowhere")
    assert own("2") == ["c", "old"]
    tag("replace", "--run-id", "F/2", "--remove", "c", "--remove", "old", "--add", "d")
    assert own("2") == ["d"]
    told = json.loads(tag("add", "--run-id", "F/2", "e", "--json"))
    assert (told["pathspec"], told["user_tags"]) == ("F/2", ["d", "e"])
    assert "user:somebody" in told["system_tags"]


def test_tags_are_listed_of_the_latest_run_or_of_others(tag, monkeypatch):
    """By run, by tag, or alone."""
    monkeypatch.setenv("LOGNAME", "somebody")
    assert tag("list", "--hide-system-tags") == "F/2: a old\n"
    assert tag("list", "--run-id", "F/1", "--hide-system-tags", "--group-by-run") == "F/1: old\n"
    assert "user:somebody" in tag("list", "--flat").splitlines()
    everywhere = tag("list", "--all", "--hide-system-tags", "--group-by-tag")
    assert everywhere == "a: F/2\nold: F/2 F/1\n"
    assert tag("list", "--my-runs", "--hide-system-tags") == "F/2: a old\nF/1: old\n"
    monkeypatch.setenv("LOGNAME", "somebody-else")
    assert tag("list", "--my-runs") == ""
    assert [run["pathspec"] for run in json.loads(tag("list", "--all", "--json"))] == ["F/2", "F/1"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["add", "x"], "say which run: --run-id F/2, for the latest"),
        (["add", "--run-id", "F", "x"], "is not of the form Flow/run"),
        (["add", "--run-id", "F/2"], "Missing argument"),
        (["add", "--run-id", "F/3", "x"], "has no run '3'"),
        (["add", "--run-id", "F/2", ""], "the tag '' is empty"),
        (["remove", "--run-id", "F/2", "user:somebody"], "cannot be removed"),
        (["replace", "--run-id", "F/2"], "say which tags"),
        (["list", "--run-id", "F/2", "--all"], "leave out --all"),
        (["list", "--flat", "--group-by-tag"], "exclude each other"),
    ],
)
def test_what_makes_no_sense_is_refused(tag, capsys, arguments, words):
    """With a word about what to write instead, and nothing is changed."""
    assert invoke(["tag", *arguments]) == 2
    assert words in capsys.readouterr().err
    assert own("2") == ["a", "old"]


def test_the_commands_of_a_flow_need_no_name_of_it(tag, capsys):
    """The id of the run is enough."""
    assert invoke(["tag", "add", "--run-id", "1", "x"], flow=F, script="f.py") == 0
    assert own("1") == ["old", "x"]
    assert invoke(["tag", "add", "x"], flow=F, script="f.py") == 2
    assert "say which run: --run-id 2, for the latest" in capsys.readouterr().err
