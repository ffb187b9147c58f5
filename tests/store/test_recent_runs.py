"""The newest runs of a flow, noted in the file of its last id."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from itertools import islice
from pathlib import Path
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncflow.store import recent_runs, run_ids
from asyncflow.store.layout import Layout
from asyncflow.store.maintenance.collect import set_aside

_CHANGES = st.lists(
    st.sampled_from(["start", "start", "start", "remove", "copy", "tear", "old version", "lose"]),
    max_size=14,
)


@pytest.fixture
def layout(store):
    """A store of this test's own."""
    return Layout.open(store, create=True)


def _later(folder: Path) -> None:
    """Give a folder another time than the one that was noted, as a change a moment later has."""
    status = folder.stat()
    os.utime(folder, ns=(status.st_atime_ns, status.st_mtime_ns + 10_000_000))


def _change(layout: Layout, what: str, copied: int) -> None:
    folder, newest = layout.flow_dir("F"), layout.newest_id("F")
    match what:
        case "start":
            layout.create_run("F")
        case "remove" if layout.runs("F"):
            shutil.rmtree(folder / layout.runs("F")[0])
            _later(folder)
        case "copy" if folder.is_dir():
            (folder / str(copied)).mkdir()
            _later(folder)
        case "tear" if newest.exists():
            newest.write_bytes(newest.read_bytes()[:-5])
        case "old version" if newest.exists():  # knows the first line alone
            number = int(newest.read_bytes()[:17]) + 1
            (folder / str(number)).mkdir()
            with newest.open("r+b") as file:
                file.write(b"%d\n" % number)
            _later(folder)
        case "lose":
            newest.unlink(missing_ok=True)


@given(changes=_CHANGES, most=st.sampled_from([1, 3, 256]))
def test_the_newest_runs_are_those_that_a_listing_finds(changes, most):
    """Whatever was done to a store, the quick answer is the one of a whole listing."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patched:
        patched.setattr(recent_runs, "_MOST_RUNS", most)
        layout = Layout.open(Path(folder, "store"), create=True)
        for number, what in enumerate(changes):
            _change(layout, what, copied=1000 + number)
            assert list(layout.newest_runs("F")) == layout.runs("F")


def test_a_few_newest_runs_need_no_listing(layout, monkeypatch):
    """What was noted is enough for the newest runs, even if there are others."""
    monkeypatch.setattr(recent_runs, "_MOST_RUNS", 3)
    started = [layout.create_run("F") for _ in range(5)]
    monkeypatch.setattr(Layout, "runs", lambda *_: pytest.fail("the runs were listed"))
    assert list(islice(layout.newest_runs("F"), 3)) == started[:1:-1]


def test_a_start_after_any_change_notes_the_runs_anew(layout, monkeypatch):
    """One start lists the runs after somebody has removed one, and the next question does not."""
    started = [layout.create_run("F") for _ in range(3)]
    shutil.rmtree(layout.run_dir("F", started[1]))
    _later(layout.flow_dir("F"))
    newest = layout.create_run("F")
    monkeypatch.setattr(Layout, "runs", lambda *_: pytest.fail("the runs were listed"))
    assert list(layout.newest_runs("F")) == [newest, started[2], started[0]]


def test_a_run_that_is_removed_while_another_starts_is_not_listed(layout, monkeypatch):
    """The start has read the list before, and notes it after: the removal has the last word."""
    gone, stays = (layout.create_run("F") for _ in range(2))
    removal = Thread(target=set_aside, args=(layout, "F", gone))
    make = run_ids._make

    def make_after_removal(runs, number):
        removal.start()
        while layout.run_dir("F", gone).exists():
            time.sleep(0.001)
        return make(runs, number)

    monkeypatch.setattr(run_ids, "_make", make_after_removal)
    newest = layout.create_run("F")
    removal.join()
    assert list(layout.newest_runs("F")) == [newest, stays]
