"""The scenario `gc`: a store with all that there can be to tidy up, and what must come of it.

Before: a removable run whose blobs nobody else needs, one whose segments and logs a later run has
taken over, a run that never began, unfinished blobs and files, and a needed blob that an earlier
collection had aside when it was killed.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from asyncflow import Flow, Run
from asyncflow.store.journal import HEADER
from asyncflow.store.layout import ASIDE, Layout
from asyncflow.store.limit_files import Bounds, LimitFile
from asyncflow.store.maintenance import verify
from asyncflow.store.maintenance.collect import DRAFT_SECONDS, GRACE_SECONDS, collect
from asyncflow.store.maintenance.reachable import Marks
from asyncflow.store.maintenance.remove import remove

_OLD_SECONDS = 3 * 86_400
_UNBEGUN = "1600000000000000"
_TAGS_BEFORE, _TAGS_AFTER = frozenset({"a", "b"}), frozenset({"b", "c", "d"})


def litter(store: Path) -> None:
    """Leave about what crashes leave, and make all that there is old.

    Runs of Linear, Foreach, Resumed (failed) and Resumed (its resume) are there already.
    """
    layout = Layout(store)
    layout.run_dir("Linear", _UNBEGUN).mkdir(0o700)
    (layout.run_dir("Linear", _UNBEGUN) / "journal").write_bytes(HEADER)
    (layout.run_dir("Linear", _UNBEGUN) / "engine.seg").write_bytes(b"of no use")
    (store / "format.123.0123abcd").write_text("1\n")
    Path(layout.new_blob()).write_bytes(b"half")
    finished = layout.run_dir("Foreach", layout.runs("Foreach")[0])
    (finished / "inputs-9").write_bytes(b"left behind")
    (finished / ".inputs-10").write_bytes(b"left behind")
    (finished / "w1.seg").write_bytes(b"never announced")
    run = Run(f"Foreach/{finished.name}", store=store)
    for artifact in next(iter(run["work"])):
        if artifact.id == "value":
            digest = bytes.fromhex(artifact.sha)
            os.rename(layout.blob(digest), layout.blob_aside(digest))  # noqa: PTH104 - both are text
    run.add_tags(_TAGS_BEFORE)
    old = time.time() - _OLD_SECONDS
    for path in [store, *store.rglob("*")]:
        os.utime(path, (old, old))


def tidy(store: Path) -> None:
    """Remove runs, collect garbage, set a limit, change tags: as the command line does."""
    layout = Layout.open(store, create=False)
    failed = layout.runs("Resumed")[1:]
    removable = [("Linear", run) for run in layout.runs("Linear") if run != _UNBEGUN]
    wanted = [*removable, *[("Resumed", run) for run in failed]]
    if wanted:
        remove(layout, wanted)
    collect(layout)
    with LimitFile.open(layout.limits, "api", mend=True) as file:
        file.set_bounds(Bounds(2))
    Flow("Foreach", store=store).latest_run.replace_tags(_TAGS_BEFORE, _TAGS_AFTER)


def check_others(store: Path) -> None:
    """All but the run beside which it is tidied can be read, as ever; also what was taken over."""
    resumed = Flow("Resumed", store=store).latest_run
    assert resumed.data.answer == sum(n * n for n in range(6))
    for flow in ("Foreach", "Resumed"):
        for run in Flow(flow, store=store):
            for step in run:
                for task in step:
                    assert all(artifact.data is not None for artifact in task)
    assert sorted(task.stdout for task in Run(resumed.pathspec, store=store)["work"]) == [
        f"item {n}\n" for n in range(6)
    ]
    assert Flow("Foreach", store=store).latest_run.user_tags in {_TAGS_BEFORE, _TAGS_AFTER}
    damage = verify.verify(Layout(store)).damage
    assert not damage, damage


def check_tidied(store: Path) -> None:
    """Nothing is left of what was to go; everything that is needed is there."""
    layout = Layout(store)
    assert layout.runs("Linear") == layout.removed_runs("Linear") == []
    assert len(layout.runs("Resumed")) == 1
    assert not list(store.glob("format.*"))
    with LimitFile.open(layout.limits, "api") as file:
        assert file.bounds() == Bounds(2)
    assert Flow("Foreach", store=store).latest_run.user_tags == _TAGS_AFTER
    for draft in (layout.blobs / "new").iterdir():  # a killed worker's may still be written to
        assert not draft.name.startswith(ASIDE)
        assert draft.stat().st_mtime > time.time() - DRAFT_SECONDS
    finished = layout.run_dir("Foreach", layout.runs("Foreach")[0])
    assert not list(finished.glob("*inputs-*"))
    assert not (finished / "w1.seg").exists()
    marks = Marks(layout)
    marks.read_all()
    needless = time.time() - 2 * GRACE_SECONDS
    for path in layout.blobs.glob("??/*"):
        assert bytes.fromhex(path.name) in marks.blobs or path.stat().st_mtime > needless, path
