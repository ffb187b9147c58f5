"""`verify`, `gc` and `rm` in an object store."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from blake3 import blake3

from asyncflow import Run, copy_runs
from asyncflow._support import commit_points
from asyncflow.errors import NotFoundError, RemoveError
from asyncflow.store import open_store
from asyncflow.store.maintenance import object_marks
from asyncflow.store.maintenance.any_store import collect_in, remove_from, verify_store
from tests.cluster.test_copy_runs import BLOB, SEGMENT, Killed, kept, write

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from asyncflow.store.interface import RunStore

pytestmark = pytest.mark.cluster


@pytest.fixture
def store(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Generator[RunStore, None, None]:
    """An object store with the run 100, and 200 that has resumed it; its objects are old."""
    monkeypatch.setenv("ASYNCFLOW_CACHE", str(tmp_path / "cache"))
    source = tmp_path / "source"
    write(source, "100", segment=SEGMENT, blob=BLOB)
    write(source, "200", origin="100", more=SEGMENT, large=BLOB * 2)
    copy_runs(source, f"s3://{bucket}/store")
    opened = open_store(f"s3://{bucket}/store")
    yield opened
    opened.close()


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three days have passed for whoever collects."""
    now = time.time

    def then() -> float:
        return now() + 3 * 86_400

    monkeypatch.setattr(time, "time", then)


def objects_of(store: RunStore) -> Any:
    """The objects of a store, below the protocol."""
    return store.objects  # type: ignore[attr-defined]  # of an object store alone


def names_in(store: RunStore, folder: str = "") -> list[str]:
    """The names of all objects."""
    return [facts.name for facts in objects_of(store).listed(folder)]


def put_blob(store: RunStore, data: bytes) -> str:
    """Put a blob that no run needs; its digest."""
    name = blake3(data).hexdigest()
    objects_of(store).put(f"blobs/{name[:2]}/{name}", data)
    return name


def collect(store: RunStore, **options: Any) -> Any:
    """Collect, and expect not to wait."""
    return collect_in(store, **{"dry_run": False, "on_wait": pytest.fail, **options})


def rm(store: RunStore, *run_ids: str, **options: Any) -> Any:
    """Remove runs of F."""
    runs = [("F", run_id) for run_id in run_ids]
    return remove_from(store, runs, **{"dry_run": False, "on_wait": pytest.fail, **options})


# --- verify ---------------------------------------------------------------------------------------


def test_a_store_without_damage(store: RunStore):
    """Everything is read."""
    verified = verify_store(store)
    assert (verified.damage, verified.notes) == ([], [])
    assert (verified.runs, verified.tasks) == (2, 4)
    assert verified.size > 3 * len(BLOB)
    assert verify_store(store, "F", "100").runs == 1


@pytest.mark.parametrize("kind", ["blobs/", ".seg/", "journal/", "summary", "index"])
@pytest.mark.parametrize("gone", [True, False])
def test_what_is_damaged_or_gone_is_told(store: RunStore, kind: str, gone: bool):
    """With what it affects."""
    name = next(each for each in names_in(store) if kind in each)
    objects = objects_of(store)
    data = objects.get(name)
    objects.delete([name])
    if not gone:
        objects.put(name, data[:-3] + b"???")
    verified = verify_store(store)
    if gone and kind == "summary":
        assert not verified.damage  # the journal is read instead
        return
    assert len(verified.damage) == 1
    assert name.startswith(verified.damage[0].file)
    assert verified.damage[0].affected


# --- gc -------------------------------------------------------------------------------------------


def test_what_runs_need_is_kept(store: RunStore, later: None):
    """All of it, however old."""
    before = kept(store.location, "200")
    names = names_in(store)
    assert collect(store).total.files == 0
    assert {*names_in(store)} == {*names, "collector"}
    assert kept(store.location, "200") == before


def test_what_nobody_needs_goes_when_it_is_old(store: RunStore, later: None):
    """A blob goes aside for a day; young ones are spared."""
    name = put_blob(store, b"nobody's")
    assert collect(store, dry_run=True).blobs.files == 1
    assert collect(store).blobs.files == 1
    assert names_in(store, "gone") == [f"gone/{name}"]
    assert f"blobs/{name[:2]}/{name}" not in names_in(store)
    assert collect(store).drafts.files == 1
    assert names_in(store, "gone") == []


def test_what_is_young_is_spared(store: RunStore):
    """Nobody can tell yet."""
    put_blob(store, b"nobody's")
    assert collect(store).spared.files == 1
    assert collect(store).total.files == 0


def test_a_blob_that_is_named_after_all_is_put_back(store: RunStore, later: None, tmp_path: Path):
    """If a run appears while the blobs are set aside."""
    source = tmp_path / "source"
    before = kept(store.location, "200")
    rm(store, "100", "200")
    waiting = True

    def appear(name: str) -> None:
        nonlocal waiting
        if waiting and name == "gone.copied":
            waiting = False
            copy_runs(source, store.location, "F/200")  # its blobs are there, and are not put again

    commit_points.watcher = appear
    try:
        collected = collect(store)
    finally:
        commit_points.watcher = None
    assert collected.blobs.files == 0
    assert collected.spared.files == 2
    assert not verify_store(store).damage
    assert kept(store.location, "200") == before


def test_killed_at_any_point_nothing_is_lost(store: RunStore, later: None, tmp_path: Path):
    """Of what is needed; the next collection goes on."""
    before = kept(store.location, "200")
    objects = objects_of(store)
    rm(store, "100")
    for number in range(4):
        put_blob(store, b"nobody's %d" % number)
    left = point = 0

    def die(_: str) -> None:
        nonlocal left
        left -= 1
        if not left:
            raise Killed

    killed = 0
    while True:
        point += 1
        left, commit_points.watcher = point, die
        try:
            collect(store)
        except Killed:
            killed += 1
        else:
            break
        finally:
            commit_points.watcher = None
        objects.delete(["collector"])  # it would be waited for
        assert not verify_store(store).damage
    assert killed > 10
    assert kept(store.location, "200") == before
    assert not list(names_in(store, "blobs/ab"))


def test_a_run_that_was_left_behind_is_sealed_and_a_young_one_is_not(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
):
    """Then its writer, if it lived, could write no more."""
    run = store.make_run("F")
    writer = run.begin_journal()
    with Run("F/100", store=store.location)._record.stored.open_journal() as journal:
        from asyncflow.store.frames import frame

        writer.write(frame(journal.read_one(20)))
    writer.deliver()
    writer.close()
    store.close()
    objects_of(store).delete([f"flows/F/{run.run_id}/claim"])
    collect(store)
    assert not store.run("F", run.run_id).is_over()  # type: ignore[attr-defined]  # of an object store alone
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 3 * 86_400)
    collect(store)
    assert store.run("F", run.run_id).is_over()  # type: ignore[attr-defined]  # of an object store alone


def test_one_collects_at_a_time(store: RunStore, monkeypatch: pytest.MonkeyPatch):
    """Another waits, and takes over from one that is dead."""
    told: list[str] = []
    with object_marks.collecting(store, told.append):  # type: ignore[arg-type]  # the one that `url` is of

        def stop(text: str) -> None:
            told.append(text)
            raise Killed

        with pytest.raises(Killed):
            collect(store, on_wait=stop)
    assert f"process {__import__('os').getpid()} on " in told[0]
    objects_of(store).put("collector", b"{}")
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 3 * 86_400)
    collect(store)
    assert objects_of(store).get("collector") == b""  # nobody collects


# --- rm -------------------------------------------------------------------------------------------


def test_who_lets_go_takes_nothing_from_who_is_next(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
):
    """Whoever waits may come between any two of its requests."""
    monkeypatch.setattr(object_marks, "_BEAT_SECONDS", 0.0)
    entered = []

    def enter(_point: str) -> None:
        commit_points.watcher = None
        following = object_marks.collecting(store, pytest.fail)  # type: ignore[arg-type]  # the fixture gives an object store
        entered.append((following, following.__enter__()))

    with object_marks.collecting(store, pytest.fail) as first:  # type: ignore[arg-type]  # the fixture gives an object store
        first.beat()
        monkeypatch.setattr(
            commit_points,
            "watcher",
            lambda point: enter(point) if point == "object.replaced" else None,
        )
    ((following, second),) = entered
    second.beat()
    following.__exit__(None, None, None)


def test_a_run_is_removed_and_what_others_need_is_kept(store: RunStore, later: None):
    """Its journal for the output, its segments for the values."""
    before = kept(store.location, "200")
    assert rm(store, "100", dry_run=True)[0].kept
    assert store.runs("F") == ["200", "100"]
    (removed,) = rm(store, "100")
    assert "journal" in removed.kept
    assert store.runs("F") == ["200"]
    assert not names_in(store, "flows/F/100")
    collect(store)
    assert kept(store.location, "200") == before
    rm(store, "200")
    assert store.runs("F") == []
    collect(store)
    collect(store)
    assert [name for name in names_in(store) if name.startswith(("blobs", "flows", "gone"))] == []


def test_what_may_not_be_removed(store: RunStore):
    """A run that is missing, or running."""
    with pytest.raises(NotFoundError):
        rm(store, "7")
    run = store.make_run("F")
    writer = run.begin_journal()
    try:
        with pytest.raises(RemoveError, match="is running"):
            rm(store, run.run_id)
    finally:
        writer.close()
        store.close()


def test_killed_at_any_point_a_run_is_removed_or_not(store: RunStore):
    """And others have what they need."""
    before = kept(store.location, "200")
    left = point = 0

    def die(_: str) -> None:
        nonlocal left
        left -= 1
        if not left:
            raise Killed

    while True:
        point += 1
        left, commit_points.watcher = point, die
        try:
            rm(store, "100")
        except Killed:
            pass
        except NotFoundError:
            assert not names_in(store, "flows/F/100")  # killed after the last deletion
            break
        else:
            break
        finally:
            commit_points.watcher = None
        objects_of(store).delete(["collector"])
        assert not verify_store(store).damage
        assert kept(store.location, "200") == before
    assert point > 5
    assert store.runs("F") == ["200"]
    assert kept(store.location, "200") == before


def test_the_commands(store: RunStore):
    """They take the URL of a store."""

    def asyncflow(*arguments: str) -> str:
        command = [sys.executable, "-m", "asyncflow", *arguments, "--store", store.location]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100)
        return done.stdout

    assert "Found no damage" in asyncflow("verify")
    assert json.loads(asyncflow("gc", "--json"))["total"]["files"] == 0
    assert "Removed F/100" in asyncflow("rm", "F/100")
    assert "Removed F/200" in asyncflow("rm", "--flow", "F", "--keep-last", "0")
