from __future__ import annotations

import errno
import fcntl
import os
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from asyncflow.errors import NotFoundError, StoreError, StoreFormatError
from asyncflow.store.layout import FORMAT, Layout


def processes(count: int, script: str, *arguments: object) -> list[str]:
    """What that many processes print that run the same script at the same moment."""
    start = f"import sys, time\ntime.sleep(max(0, {time.time() + 1.0} - time.time()))\n"
    running = [
        subprocess.Popen(
            [sys.executable, "-P", "-c", start + textwrap.dedent(script), *map(str, arguments)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        for _ in range(count)
    ]
    told = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0] * count
    return told


def test_a_store_is_made_once_and_opened_again(store: Path):
    """The format file is what makes a folder a store."""
    with pytest.raises(StoreError, match=r"there is no store at .*--store DIR"):
        Layout.open(store, create=False)
    assert not store.exists()
    Layout.open(store, create=True)
    assert (store / "format").read_text() == f"{FORMAT}\n"
    assert [path.name for path in store.iterdir()] == ["format"]
    assert Layout.open(store, create=False).root == store


def test_a_relative_store_stays_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A step that changes its working directory still finds the store."""
    monkeypatch.chdir(tmp_path)
    layout = Layout.open("here", create=True)
    monkeypatch.chdir("/")
    assert layout.root == tmp_path / "here"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"{FORMAT + 1}\n", rf"has format {FORMAT + 1}, and .* up to format {FORMAT}; upgrade"),
        ("zip", r"is not a store of asyncflow: its file `format` says 'zip'"),
        ("", "is not a store of asyncflow"),
    ],
)
@pytest.mark.parametrize("create", [True, False])
def test_a_store_of_another_format_is_refused(store: Path, text, words, create):
    """A newer layout is named with both versions, and left as it is."""
    store.mkdir()
    (store / "format").write_text(text)
    with pytest.raises(StoreFormatError, match=words):
        Layout.open(store, create=create)
    assert (store / "format").read_text() == text


def test_where_no_store_can_be(tmp_path: Path):
    """Each error tells what to do about it."""
    with pytest.raises(StoreError, match=r"there is no folder .*/missing; create that, or choose"):
        Layout.open(tmp_path / "missing" / "store", create=True)
    file = tmp_path / "file"
    file.touch()
    for path in (file, file / "store"):
        for create in (True, False):
            with pytest.raises(
                StoreError, match=rf"at {path}: {file} is not a folder; choose another"
            ):
                Layout.open(path, create=create)
    with pytest.raises(
        StoreError, match=r"at /dev/null: /dev/null is not a folder; choose another"
    ):
        Layout.open("/dev/null", create=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_to(tmp_path: Path):
    """Missing rights are told as such."""
    tmp_path.chmod(0o500)
    with pytest.raises(
        StoreError, match=r"cannot be made: .* may not be written to: .*; change its"
    ):
        Layout.open(tmp_path / "store", create=True)


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (
            "/proc/store",
            "the store /proc/store cannot be made: /proc takes no new folders: No such",
        ),
        ("/sys/store", "the store /sys/store cannot be made: "),  # read-only, or nobody may
        ("/dev/null/store", "the store cannot be at /dev/null/store: /dev/null is not a folder; "),
        (300 * "n", "File name too long; take a shorter name, or choose another place"),
        ("", "a store cannot be at empty text; choose another place"),
        ("a\0b", r"a store cannot be at 'a\\x00b': no path can have that text; choose another"),
        ("\ud800", r"a store cannot be at '\\ud800': no path can have that text; choose another"),
    ],
)
def test_a_store_in_a_place_that_takes_none_says_why(place, words):
    """Nothing was there before, so there is nothing to put back."""
    with pytest.raises(StoreError, match=rf"{words}.*--store DIR or ASYNCFLOW_STORE$") as caught:
        Layout.open(place, create=True)
    assert "put back" not in str(caught.value)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EROFS, r"cannot be made: Read-only file system; make that file system writable, or"),
        (errno.ENOSPC, r"cannot be made: No space left on device; make room there, or choose"),
        (errno.EACCES, r"may not be written to: Permission denied; change its rights, or choose"),
        (errno.EPERM, r"may not be written to: Operation not permitted; change its rights, or"),
    ],
)
def test_a_folder_that_cannot_be_made_is_explained(store: Path, monkeypatch, number, words):
    """As the system says why, with what to do."""

    def refuse(_path: Path, _mode: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(StoreError, match=words):
        Layout.open(store, create=True)


@pytest.mark.parametrize("place", ["link", "link/store", "link to link"])
def test_a_link_that_leads_nowhere_is_named_with_what_it_leads_to(tmp_path: Path, place):
    """Nothing but that folder is missing; once it is there, the store can be made."""
    missing = tmp_path.resolve() / "missing"
    (tmp_path / "link").symlink_to("missing")
    (tmp_path / "link to link").symlink_to("link")
    with pytest.raises(StoreError) as caught:
        Layout.open(tmp_path / place, create=True)
    link = tmp_path / Path(place).parts[0]
    assert f"{link} leads to {missing}, which is not there; create that, or" in str(caught.value)
    missing.mkdir()
    Layout.open(tmp_path / place, create=True)
    assert not list(tmp_path.rglob("format.*"))


def test_a_store_that_cannot_be_finished_leaves_no_draft(store: Path, monkeypatch):
    """A disk that is full has room again: then the store is made."""

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(StoreError, match="No space left on device"):
            Layout.open(store, create=True)
    assert not list(store.iterdir())
    Layout.open(store, create=True)
    assert [path.name for path in store.iterdir()] == ["format"]


def test_folders_are_private(store: Path):
    """Nobody else may look into a store."""
    layout = Layout.open(store, create=True)
    run = layout.run_dir("Flow", layout.create_run("Flow"))
    layout.folder("blobs", "ab", make=True).close()
    shard = layout.blobs / "ab"
    for folder in (store, run, run.parent, run.parent.parent, layout.blobs, shard):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_ten_processes_create_one_store(store: Path):
    """Whoever comes first makes it, and the others find it whole."""
    told = processes(
        10,
        """
        from asyncflow.store.layout import Layout
        layout = Layout.open(sys.argv[1], create=True)
        print((layout.root / "format").read_text().strip())
        """,
        store,
    )
    assert told == [f"{FORMAT}\n"] * 10
    assert [path.name for path in store.iterdir()] == ["format"]


def test_runs_started_in_the_same_microsecond_have_ids_of_their_own(store: Path):
    """Ids are handed out by the file system: no two are the same."""
    Layout.open(store, create=True)
    told = processes(
        4,
        """
        import time
        from asyncflow.store.layout import Layout
        time.time_ns = lambda: 1_700_000_000_000_000_000
        layout = Layout.open(sys.argv[1], create=False)
        for _ in range(50):
            print(layout.create_run("Flow"))
        """,
        store,
    )
    ids = [line for lines in told for line in lines.split()]
    first = 1_700_000_000_000_000
    assert sorted(ids) == [str(first + i) for i in range(200)]


def test_a_run_is_named_for_the_time_of_its_start(store: Path):
    """Microseconds since 1970."""
    layout = Layout.open(store, create=True)
    before = time.time_ns() // 1000
    run_id = layout.create_run("Flow")
    assert before <= int(run_id) <= time.time_ns() // 1000
    assert layout.run_dir("Flow", run_id).is_dir()


def test_flows_and_runs_are_listed(store: Path):
    """Flows by name, runs newest first; what is neither is told apart from them."""
    layout = Layout.open(store, create=True)
    assert layout.flows() == []
    assert layout.runs("Flow") == []
    ids = [layout.create_run("Flow") for _ in range(3)]
    layout.create_run("Another")
    layout.run_dir("Flow", "999").mkdir()
    layout.run_dir("Flow", "notes").mkdir()
    (layout.flow_dir("Flow") / "12345").touch()
    (layout.flow_dir("Flow") / ".DS_Store").touch()  # what desktops make is no run of anybody's
    assert layout.flows() == ["Another", "Flow"]
    assert layout.runs("Flow") == [*reversed(ids), "999"]
    listing = layout.list_runs("Flow")
    assert listing.names == layout.runs("Flow")
    assert [stray.path.name for stray in listing.strays] == ["12345", "notes"]
    assert not layout.list_flows().strays


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "/etc", "a\\b", "a\0b", ".hidden", "1" * 256, "\ud800"]
)
def test_names_that_lead_elsewhere_are_refused(store: Path, name):
    """No name of a flow or run reaches out of the store."""
    layout = Layout(store)
    for call in (
        lambda: layout.flow_dir(name),
        lambda: layout.run_dir("Flow", name),
        lambda: layout.create_run(name),
        lambda: layout.runs(name),
    ):
        with pytest.raises(NotFoundError, match="cannot name a flow or a run"):
            call()


def test_a_run_that_cannot_be_made_is_a_store_error(store: Path):
    """What is in the way is named."""
    layout = Layout.open(store, create=True)
    (store / "flows").touch()
    with pytest.raises(StoreError, match="flows is not a folder"):
        layout.create_run("Flow")
    with pytest.raises(StoreError, match=r"flows: Not a directory; put back what was"):
        layout.flows()


def test_blobs_lie_in_shards(store: Path):
    """The first byte of the digest names the folder."""
    layout = Layout(store)
    digest = bytes(range(32))
    assert layout.blob(digest) == f"{store}/blobs/00/{digest.hex()}"
    assert layout.new_blob() != layout.new_blob()
    assert repr(layout) == f"<Layout {store}>"


# --- the ids of runs ----------------------------------------------------------------------------

YEAR = 365 * 86_400 * 1_000_000


def set_clock(monkeypatch, microseconds):
    """Have this process's clock stand there."""
    monkeypatch.setattr(time, "time_ns", lambda: microseconds * 1000)


def test_the_run_that_is_started_last_is_the_newest_though_the_clock_went_back(store, monkeypatch):
    """And once the clock has caught up, ids are the time again."""
    layout = Layout.open(store, create=True)
    ids = []
    for clock in (3 * YEAR, 2 * YEAR, 0, 3 * YEAR - 1, 4 * YEAR):
        set_clock(monkeypatch, clock)
        ids.append(layout.create_run("Flow"))
        assert layout.runs("Flow")[0] == ids[-1]
    assert ids == [str(3 * YEAR + n) for n in range(4)] + [str(4 * YEAR)]


@pytest.mark.parametrize("removed", [True, False])
def test_the_id_of_a_run_that_is_gone_is_not_given_again(store, monkeypatch, removed):
    """Others may still refer to what is left of it."""
    layout = Layout.open(store, create=True)
    set_clock(monkeypatch, 3 * YEAR)
    first = layout.create_run("Flow")
    layout.removed_dir("Flow").mkdir()
    if removed:
        layout.run_dir("Flow", first).rename(layout.removed_dir("Flow", first))
        layout.newest_id("Flow").unlink()
    else:
        layout.run_dir("Flow", first).rmdir()
    assert layout.create_run("Flow") == str(3 * YEAR + 1)


@pytest.mark.parametrize("text", [None, "", "no number\n", "17", f"{2 * YEAR}\n"])
def test_without_the_id_that_was_given_last_the_runs_are_asked(store, monkeypatch, text):
    """An older version writes no such file, and a power cut may leave an older or empty one."""
    layout = Layout.open(store, create=True)
    set_clock(monkeypatch, 3 * YEAR)
    layout.create_run("Flow")
    newest = layout.newest_id("Flow")
    newest.unlink() if text is None else newest.write_text(text)
    set_clock(monkeypatch, YEAR)
    assert layout.create_run("Flow") == str(3 * YEAR + 1)


def test_processes_with_clocks_of_their_own_start_runs_in_one_order(store):
    """Whoever starts a run after another has started one has the greater id."""
    Layout.open(store, create=True)
    told = processes(
        4,
        """
        import os, time
        from asyncflow.store.layout import Layout
        behind = os.getpid() % 7 * 10**15
        real = time.time_ns
        time.time_ns = lambda: real() - behind
        layout = Layout.open(sys.argv[1], create=False)
        for _ in range(50):
            before = layout.runs("Flow")
            run_id = layout.create_run("Flow")
            assert not before or int(before[0]) < int(run_id)
            print(run_id)
        """,
        store,
    )
    mine = [[int(line) for line in lines.split()] for lines in told]
    assert all(ids == sorted(ids) for ids in mine)
    assert len({run_id for ids in mine for run_id in ids}) == 200


def test_a_start_that_is_kept_waiting_names_who_holds_the_lock(store, monkeypatch):
    """It does not wait for ever."""
    monkeypatch.setattr("asyncflow.store.run_ids._LOCK_SECONDS", 0.0)
    layout = Layout.open(store, create=True)
    layout.create_run("Flow")
    path = layout.newest_id("Flow")
    with path.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(StoreError, match="this process holds a lock on"):
            layout.create_run("Flow")
    layout.create_run("Flow")


def test_where_no_greater_id_can_be_given_the_error_says_what_to_do(store):
    """Somebody has put a run there that the store did not name."""
    layout = Layout.open(store, create=True)
    layout.create_run("Flow")
    (layout.flow_dir("Flow") / ("9" * 19)).mkdir()
    layout.newest_id("Flow").unlink()
    with pytest.raises(StoreError, match="no run can have an id above 9999999999999999999"):
        layout.create_run("Flow")


# --- modes --------------------------------------------------------------------------------------


def test_a_store_is_its_owners_alone_whatever_the_umask(store, tmp_path):
    """Every file and every folder that a run with values of all sizes makes, and a limit."""
    (tmp_path / "open_flow.py").write_text(
        textwrap.dedent(
            """
            from asyncflow import FlowSpec, limit, step

            class OpenFlow(FlowSpec):
                @step
                def start(self):
                    self.middling, self.large = b"m" * 5000, b"q" * 400_000
                    self.items = list(range(5000))
                    self.next(self.work, foreach="items")

                @step
                def work(self):
                    self.next(self.join)

                @limit("api", 2)
                @step
                def join(self, inputs):
                    self.next(self.end)

                @step
                def end(self):
                    pass
            """
        )
    )
    command = [sys.executable, "-m", "asyncflow", "run", "open_flow.py", "--quiet"]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run(command, cwd=tmp_path, env=environ, umask=0, check=True)
    modes = {
        str(path.relative_to(store)): stat.S_IMODE(path.stat().st_mode)
        for path in [store, *store.rglob("*")]
    }
    assert {name for name, mode in modes.items() if mode & 0o077} == set()
    assert {"format", "limits/api", "newest/OpenFlow"} < set(modes)
    assert {Path(name).name for name in modes} > {"summary", "index", "journal"}
