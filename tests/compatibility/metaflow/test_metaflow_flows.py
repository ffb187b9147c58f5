"""Flows that Metaflow has run, whose answers are kept, give the same answers here."""

from __future__ import annotations

import json
import sys

import pytest

from asyncflow import Engine, default_metadata, namespace
from tests.compatibility.metaflow import ours
from tests.compatibility.metaflow.cases import (
    CASES,
    DIFFERENT,
    FLOWS,
    golden_file,
    our_file,
)
from tests.compatibility.metaflow.compare import differences, unexplained
from tests.compatibility.metaflow.theirs import USER


@pytest.fixture(scope="module")
async def engine(tmp_path_factory):
    """One engine for all flows."""
    async with Engine(store=tmp_path_factory.mktemp("metaflow") / "store", workers=2) as engine:
        yield engine


@pytest.fixture
def surroundings(engine, tmp_path, monkeypatch):
    """A folder, a store and a user, as Metaflow had them when its answer was kept."""
    monkeypatch.setenv("ASYNCFLOW_STORE", str(engine.settings.store))
    for variable in ("LOGNAME", "USER"):
        monkeypatch.setenv(variable, USER)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    namespace(None)  # what a flow's look at its run has chosen is the whole process's
    default_metadata()


@pytest.mark.parametrize("name", CASES)
async def test_the_answer_is_metaflows(name, engine, surroundings):
    """Every artifact, output, parent and child, tag and answer of the client is the same.

    What differs on purpose has its reason in the table, has to differ, and stays as it is.
    """
    answer = await ours.answer(CASES[name], name, surroundings, engine)
    found = differences(json.loads(golden_file(name).read_text(encoding="utf-8")), answer)
    wrong, stale = unexplained(found, DIFFERENT.get(name, ()))
    assert not wrong, {path: found[path] for path in wrong}
    assert not stale, f"differs no longer, take it out of DIFFERENT: {stale}"
    if name in DIFFERENT:
        assert answer == json.loads(our_file(name).read_text(encoding="utf-8"))


def test_the_table_is_whole():
    """Each flow has an answer of Metaflow's, and each answer a flow."""
    kept = {file.stem for file in (FLOWS.parent / "golden").glob("*.json")}
    assert kept == set(CASES)
    assert set(CASES) >= set(DIFFERENT)
    different = {file.stem for file in (FLOWS.parent / "different").glob("*.json")}
    assert different == set(DIFFERENT)
