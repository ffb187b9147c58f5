"""Links in a store, as one that came from elsewhere has them: nothing behind one is changed."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

import pytest

from asyncflow import Engine, FlowSpec, Run, step
from asyncflow._support import commit_points
from asyncflow.errors import LimitError, RemoveError, StoreError
from asyncflow.store import open_store
from asyncflow.store.artifacts import ArtifactWriter
from asyncflow.store.layout import Layout
from asyncflow.store.limit_files import Bounds, LimitFile
from asyncflow.store.maintenance.collect import collect
from asyncflow.store.maintenance.remove import remove
from asyncflow.store.maintenance.verify import verify
from tests.store.test_remove import GRAPH, write_run
from tests.support.command_line import here
from tests.support.store_files import writer_of
from tests.support.written_runs import RunWriter

DIGEST = "ab" + "0" * 62
NAMES = (  # all that a store gives, so that none is spared because of its name
    *("journal", "summary", "index", ".index", "w1.seg", "inputs-7", ".inputs-8", "diary"),
    *(DIGEST, f"gc-{DIGEST}", "0" * 24, f".api.{'0' * 16}", "format.1.0123abcd", "1", "api"),
)
BLOB = 300_000
OLD = 5 * 86_400


@pytest.fixture
def strangers(tmp_path):
    """A folder of somebody else's, with files that are called as a store's are; all are old."""
    folder = tmp_path / "strangers"
    folder.mkdir()
    for name in NAMES:
        (folder / name).write_text("mine")
    make_old(folder)
    return folder


def make_old(root):
    """Give everything the time of days ago."""
    then = time.time() - OLD
    for path in [*root.rglob("*"), root]:
        os.utime(path, (then, then), follow_symlinks=False)


def seen(folder):
    """All that somebody could notice of a change: names, bytes, modes and times."""
    found = {".": folder.stat().st_mtime}
    for path in folder.iterdir():
        status = path.stat()
        found[path.name] = (path.read_bytes(), status.st_mode, status.st_mtime, status.st_ino)
    return found


def put_link(path, target):
    """A link in the place of whatever is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        path.rename(path.with_name("moved"))
    path.symlink_to(target)


@pytest.fixture
def littered(store):
    """A store with a run, a removed run, blobs and drafts that nobody needs, and a limit."""
    write_run(store, "1")
    layout = Layout.open(store, create=True)
    (layout.removed_dir("F", "3")).mkdir(parents=True)
    (layout.removed_dir("F", "3") / "journal").touch()
    with writer_of(layout, "F", "1", "w9") as writer:
        writer.put(os.urandom(BLOB))
    for name in (f"blobs/ab/{DIGEST}", f"blobs/new/gc-{DIGEST}", "blobs/new/" + "0" * 24):
        (store / name).parent.mkdir(exist_ok=True)
        (store / name).write_text("of no use")
    LimitFile.open(layout.limits, "api").close()
    make_old(store)
    return store


PLACES = (
    *("flows", "flows/F", "flows/F/1", "flows/F/2", "flows/F/.removed", "flows/F/.removed/3"),
    *("blobs", "blobs/ab", "blobs/new", "limits", "flows/F/1/journal", f"blobs/ab/{DIGEST}"),
    *("flows/F/1/w1.seg", "flows/F/.removed/3/journal", f"blobs/new/gc-{DIGEST}", "limits/api"),
)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("command", ["gc", "rm F/1", "rm F/2", "rm --flow F --keep-last 0"])
def test_nothing_behind_a_link_is_touched_wherever_it_lies(littered, strangers, place, command):
    """Whether the command can do its work or says why it does not."""
    is_file = place.endswith(("journal", "w1.seg", DIGEST, "api"))
    put_link(littered / place, strangers / "diary" if is_file else strangers)
    before = seen(strangers)
    here(*command.split())
    here("gc")
    here("verify")
    assert seen(strangers) == before


@pytest.mark.parametrize("dry_run", [True, False])
def test_of_a_run_that_is_a_link_the_link_is_removed(store, strangers, dry_run):
    """`gc` sends nobody to a command that would delete what is behind it."""
    write_run(store, "1")
    put_link(store / "flows" / "F" / "2", strangers)
    make_old(store)
    before = seen(strangers)
    refused = here("gc")
    assert refused.status == 1
    assert "after `asyncflow rm F/2` the others can be collected" in refused.stderr
    said = here("rm", "F/2", *(["--dry-run"] if dry_run else []))
    assert said.status == 0
    assert "it was a link: what it leads to was left alone" in said.stdout
    assert os.path.lexists(store / "flows" / "F" / "2") == dry_run
    assert here("gc").status == int(dry_run)
    assert seen(strangers) == before


def test_a_link_through_which_others_find_their_values_stays(store, tmp_path):
    """A run on another disk, and one that has taken its values over."""
    write_run(store, "1", table=b"t" * 5_000)
    write_run(store, "2", origin="1")
    elsewhere = (store / "flows" / "F" / "1").rename(tmp_path / "elsewhere")
    (store / "flows" / "F" / "1").symlink_to(elsewhere)
    with pytest.raises(RemoveError, match="F/1 is a link, and other runs need files behind it"):
        remove(Layout(store), [("F", "1")])
    assert Run("F/2")["start"].task["table"].data == b"t" * 5_000
    remove(Layout(store), [("F", "2"), ("F", "1")])
    assert not (store / "flows" / "F" / "1").exists()
    assert (elsewhere / "journal").exists()


def test_a_folder_of_the_stores_that_is_a_link_is_passed_over_and_named(littered, strangers):
    """Both by `gc` and by `verify`."""
    put_link(littered / "blobs" / "ab", strangers)
    collected = collect(Layout(littered))
    assert collected.links == [str(littered / "blobs" / "ab")]
    assert f"Skipped {littered}/blobs/ab: it is a link" in here("gc").stdout
    notes = verify(Layout(littered)).notes
    assert "blobs/ab: a link: files behind it are read, but never changed" in notes


SWAPS = {
    "gc.aside": "blobs/ab",
    "gc.delete": "blobs/new",
    "rm.rename": "flows/F/.removed",
    "rm.delete": "flows/F/.removed/1",
}


@pytest.mark.parametrize("point", SWAPS)
def test_a_link_that_comes_in_between_is_not_followed(littered, strangers, monkeypatch, point):
    """Between the look at a folder and the change in it, somebody puts a link in its place."""
    before = seen(strangers)
    swapped: list[str] = []

    def swap(name):
        if name == point and not swapped:
            swapped.append(name)
            put_link(littered / SWAPS[point], strangers)

    monkeypatch.setattr(commit_points, "watcher", swap)
    with suppress(StoreError):  # which names the link
        if point.startswith("gc"):
            collect(Layout(littered))
        else:
            remove(Layout(littered), [("F", "1")])
    assert swapped
    assert seen(strangers) == before


# --- what writes --------------------------------------------------------------------------------


class Large(FlowSpec):
    """A flow with a value of every size."""

    @step
    def start(self):
        """Make them."""
        self.middling, self.large = b"m" * 5_000, os.urandom(BLOB)
        self.next(self.end)

    @step
    def end(self):
        """The end."""


@pytest.mark.parametrize("place", ["flows", "flows/Large", "blobs", "blobs/new"])
async def test_a_run_writes_nothing_behind_a_link(store, strangers, place):
    """It is refused, or it fails, and the link is named."""
    Layout.open(store, create=True)
    put_link(store / place, strangers)
    before = seen(strangers)
    async with Engine(store=store, workers=1) as engine:
        with pytest.raises(Exception, match=f"{place}: it is a link|cannot write to .*{place}"):
            await engine.run(Large)
    assert seen(strangers) == before


@pytest.mark.parametrize("place", ["limits", "limits/api"])
def test_a_limit_is_not_set_behind_a_link(store, strangers, place):
    """A stranger's file is no damaged limit to be written anew."""
    Layout.open(store, create=True)
    put_link(store / place, strangers if place == "limits" else strangers / "diary")
    before = seen(strangers)
    with pytest.raises(LimitError, match="cannot use the limit 'api'"):  # noqa: SIM117 - else it would be left open
        with LimitFile.open(store / "limits", "api", mend=True) as file:
            file.set_bounds(Bounds(2))
    assert here("limit", "set", "api", "2").status == 1
    assert seen(strangers) == before


def test_a_blob_that_is_a_link_is_written_anew(store, tmp_path):
    """Its time is not changed, though its bytes are those that are stored."""
    value = os.urandom(BLOB)
    layout = Layout.open(store, create=True)
    layout.create_run("F")
    with writer_of(layout, "F", layout.runs("F")[0], "w1") as writer:
        path = Path(layout.blob(writer.put(value).digest))
        elsewhere = path.rename(tmp_path / "mine")
        path.symlink_to(elsewhere)
        os.utime(elsewhere, (1, 1))
        writer.put(value)
    assert not path.is_symlink()
    assert elsewhere.stat().st_mtime == 1


def test_the_store_itself_may_be_reached_by_a_link(store, tmp_path):
    """The user has named it."""
    write_run(store, "1")
    elsewhere = store.rename(tmp_path / "elsewhere")
    store.symlink_to(elsewhere)
    writer = RunWriter(store, "F", "2", GRAPH)
    writer.run("start")
    writer.finish()
    remove(Layout.open(store, create=False), [("F", "1")])
    assert collect(Layout.open(store, create=False)).links == []
    assert [path.name for path in (elsewhere / "flows" / "F").glob("[0-9]*")] == ["2"]
    with pytest.raises(StoreError, match="there is no store"):
        Layout.open(tmp_path / "nowhere", create=False)


# --- a run that goes on ---------------------------------------------------------------------------


@pytest.fixture
def open_run(store):
    """The place of a run that has not begun, in an open store."""
    return open_store(store, create=True).make_run("F")


WRITES = {
    "journal": lambda run: run.begin_journal(),
    "segment": lambda run: ArtifactWriter(run.value_sink("w9")).put(b"x" * 5000),
    "file": lambda run: run.put_file("summary", b"whole"),
    "deleted": lambda run: run.delete_files("inputs-"),
    "discarded": lambda run: run.discard(),
}


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_a_run_writes_nothing_behind_a_link_in_the_place_of_a_folder(
    open_run, strangers, write, depth
):
    """Its own folder, that of its flow, or that of all flows may be swapped while it goes on."""
    place = Path(open_run.place)
    swapped = [place, *place.parents][depth]
    inner = strangers / place.relative_to(swapped)
    inner.mkdir(parents=True, exist_ok=True)
    (inner / "inputs-7").write_text("mine")
    before = sorted((path, path.stat().st_mtime) for path in [strangers, *strangers.rglob("*")])
    put_link(swapped, strangers)
    with suppress(OSError, StoreError):  # a run that ends badly discards what it can
        WRITES[write](open_run)
    after = sorted((path, path.stat().st_mtime) for path in [strangers, *strangers.rglob("*")])
    assert after == before


@pytest.mark.parametrize("name", ["journal", "w9.seg"])
def test_a_run_writes_to_no_file_that_is_a_link(open_run, strangers, name):
    """Neither its journal nor a segment; it says which file it is."""
    (Path(open_run.place) / name).symlink_to(strangers / "diary")
    before = seen(strangers)
    with pytest.raises(StoreError, match=name):
        WRITES["journal" if name == "journal" else "segment"](open_run)
    assert seen(strangers) == before
