"""The cells of a notebook that a flow uses go with its class."""

from __future__ import annotations

import linecache
import pickle
import sys
from types import ModuleType

import pytest

from asyncflow.flow import cell_sources
from asyncflow.flow.cell_sources import having_cells, with_cells

CELLS = {
    "<cell 1>": "def helper(x):\n    return inner(x)\n",
    "<cell 2>": "def inner(x):\n    return 'hunter2-secret'\n",
    "<cell 3>": "def other(x):\n    return x\n",
    "<cell 4>": "class Typed:\n    def start(self):\n        return helper(1)\n",
}


@pytest.fixture
def typed(monkeypatch):
    """A class that was typed into a cell, and uses the functions of two others."""
    module = ModuleType("typed_in_cells")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for file, text in CELLS.items():
        monkeypatch.setitem(linecache.cache, file, (len(text), None, text.splitlines(True), file))
        exec(compile(text, file, "exec"), module.__dict__)  # noqa: S102 - as a notebook does
    return module.Typed


def cells_with(flow, *secrets):
    """The cells that are stored with a flow."""
    _, (kept, cells, _names) = with_cells(flow, secrets).__reduce__()
    assert kept is flow
    return cells


def test_the_cells_that_a_flow_uses_are_kept_and_no_others(typed):
    """Its own, and those of the functions that it calls, directly or not."""
    assert cells_with(typed) == {file: CELLS[file] for file in ("<cell 1>", "<cell 2>", "<cell 4>")}


def test_a_secret_is_hidden_in_a_kept_cell(typed):
    """As in the files that are kept with a run."""
    assert cells_with(typed, "hunter2-secret")["<cell 2>"] == "def inner(x):\n    return '******'\n"


def test_what_is_too_much_is_left_out(typed, monkeypatch):
    """A notebook with megabytes in a cell is stored without it."""
    monkeypatch.setattr(cell_sources, "_MOST_BYTES", len(CELLS["<cell 4>"]))
    assert list(cells_with(typed)) == ["<cell 4>"]


def test_a_flow_of_a_file_is_stored_as_it_is():
    """There is nothing to add."""
    assert with_cells(ModuleType, ()) is ModuleType
    assert with_cells(pickle.PickleError, ()) is pickle.PickleError


def test_whoever_loads_the_class_can_show_the_lines(typed, monkeypatch):
    """Without hiding what is known there already."""
    monkeypatch.setattr(linecache, "cache", {"<cell 1>": (1, None, ["known\n"], "<cell 1>")})
    assert having_cells(typed, CELLS) is typed
    assert linecache.getline("<cell 1>", 1) == "known\n"
    assert linecache.getline("<cell 4>", 3) == "        return helper(1)\n"
