"""The paths in a store, and how its folders are created.

```
STORE/
  format               the version of this layout as text: `1` and a line feed
  blobs/ab/abcdef…     one content-addressed value per file, named by the blake3 of its bytes in hex
  blobs/new/…          blobs being written; what a crash leaves here may be deleted after a day
  blobs/new/gc-ab…     a blob that a garbage collection has set aside; if it was killed, left here
  flows/NAME/RUN/      journal, *.seg (values), and after the end summary, index, times; tags
  limits/NAME          a named limit, see asyncflow.store.limit_files
  flows/NAME/.removed/RUN/   of a run that was removed: the files that other runs still refer to
  copying/NAME/RUN/    a run that is being copied from another store; or `.removed` in place of RUN
  newest/NAME          the id that a flow was given last, see asyncflow.store.run_ids
  keys/NAME/DIGEST     the run that was started with a key, see asyncflow.store.run_keys
```

Folders are created 0700 and files 0600, whatever the umask. Nothing here reads a value or an event.
Code that changes a store uses `folder`, which follows no link.

Anything else in `flows`, or in the folder of a flow, is a stray: most likely a flow or a run that
was renamed, or that is on a disk that is not mounted. What it needs cannot be known.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from asyncflow._quick_classes import NamedTuple
from asyncflow._support.commit_points import reached
from asyncflow._support.paths import absolute
from asyncflow.errors import NotFoundError, StoreError, StoreFormatError
from asyncflow.store.files import explain, read_file, reason_of, sync_folder, write_file
from asyncflow.store.folders import FOLDER_MODE, Folder
from asyncflow.store.recent_runs import RecentRuns, read_recent
from asyncflow.store.run_ids import NEWEST, REMOVED, RUN_ID, next_run
from asyncflow.values import RunId

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

FORMAT: Final = 1
"""The version of the layout that this asyncflow writes, and the newest that it reads."""

ASIDE: Final = "gc-"
"""The prefix of the name of a blob that a garbage collection has set aside."""

COPYING: Final = "copying"
"""The folder of a store for runs that are being copied from another one."""

_ENGINE_SEGMENT: Final = "engine.seg"
FORMAT_DRAFT: Final = re.compile(r"format\.\d+\.[0-9a-f]{8}")
"""The name of the file `format` until it is complete."""

_NAME_BYTES: Final = 255  # of a file, on every file system that Linux and macOS know
_NAMED_RUNS: Final = 3  # in an error
_FORMAT_BYTES: Final = 1000  # enough to recognize another kind of file
_ADVICE = "choose another place with --store DIR or ASYNCFLOW_STORE"


class Stray(NamedTuple):
    """Something among the flows or runs that is neither, or that cannot be read."""

    path: Path
    what: str
    """What is wrong with it, and what to do."""

    def __str__(self) -> str:
        return f"{self.path}: {self.what}"


class Listing(NamedTuple):
    """The contents of a folder of flows or of runs."""

    names: list[str]
    strays: list[Stray]


class Layout:
    """The paths of one store; making one touches no disk."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root: Final = Path(root)
        self._flows: Final = self.root / "flows"
        self._blobs = f"{os.fspath(root)}/blobs"  # text: a Path costs more than opening the file

    def __repr__(self) -> str:
        return f"<Layout {self.root}>"

    # --- opening --------------------------------------------------------------------------------

    @classmethod
    def open(cls, root: str | os.PathLike[str], *, create: bool) -> Self:
        """The layout of the store at `root`; with `create`, a missing store is created.

        Any number of processes may create the same store at once.

        Raises:
            WorkingDirectoryError: It is in the working directory, and that is gone.
            StoreFormatError: A newer asyncflow wrote it, or it is no store at all.
            StoreError: It is not there, or cannot be made or read; the message says what to do.
        """
        _check_place(os.fspath(root))
        layout = cls(absolute(root))
        try:
            layout._check_format(create=create)
        except OSError as error:
            raise StoreError(_explain(layout.root, error)) from error
        if create and not os.access(layout.root, os.W_OK | os.X_OK):
            message = f"the store at {layout.root} may not be written to"
            if os.statvfs(layout.root).f_flag & os.ST_RDONLY:
                raise StoreError(f"{message}: {os.strerror(errno.EROFS)}; {_ADVICE}")
            raise StoreError(f"{message}; change its rights, or {_ADVICE}")
        return layout

    def _check_format(self, *, create: bool) -> None:
        path = self.root / "format"
        try:
            text = _text(path)
        except FileNotFoundError:
            if not create:
                raise StoreError(
                    f"there is no store at {self.root}; run a flow first, or {_ADVICE}"
                ) from None
            self._create(path)
            text = _text(path)
        _check_version(self.root, text.strip())

    def _create(self, path: Path) -> None:
        reached("store.create")
        try:
            self.root.mkdir(FOLDER_MODE)
        except OSError as error:
            if not isinstance(error, FileExistsError) or _dead_link(self.root):
                raise StoreError(_explain_making(self.root, error)) from error
        # Write it under another name, then link it. So every reader sees the whole file, and a
        # newer format that somebody else has just written is not overwritten.
        draft = self.root / f"format.{os.getpid()}.{os.urandom(4).hex()}"
        try:
            # Sync it: if a power cut left the file empty, the store could not be opened.
            write_file(draft, f"{FORMAT}\n".encode(), sync=True)
            reached("store.format")
            _give_name(draft, path)
        finally:
            draft.unlink(missing_ok=True)
        with suppress(OSError):  # without access to the folder above, trust it
            sync_folder(self.root)
            sync_folder(self.root.parent)

    # --- changing -------------------------------------------------------------------------------

    def folder(self, *names: str, make: bool = False) -> Folder:
        """Open the folder at these names, to change something in it; `make` creates missing ones.

        Raises:
            OSError: One is missing, is a link, is not a folder, or may not be opened.
        """
        return Folder.open(os.fspath(self.root), *names, make=make)

    # --- blobs ----------------------------------------------------------------------------------

    @property
    def blobs(self) -> Path:
        """The folder of all shards."""
        return Path(self._blobs)

    def blob(self, digest: bytes) -> str:
        """The file of the blob with this blake3 digest."""
        name = digest.hex()
        return f"{self._blobs}/{name[:2]}/{name}"

    def new_blob(self) -> str:
        """A unique path for a blob that is still being written."""
        return f"{self._blobs}/new/{os.urandom(12).hex()}"

    def blob_aside(self, digest: bytes) -> str:
        """The path of a blob that a garbage collection has set aside for a last check."""
        return f"{self._blobs}/new/{ASIDE}{digest.hex()}"

    # --- limits ---------------------------------------------------------------------------------

    @property
    def limits(self) -> Path:
        """The folder of the named limits; it may be missing."""
        return self.root / "limits"

    # --- runs -----------------------------------------------------------------------------------

    def newest_id(self, flow: str) -> Path:
        """The file with the id of a flow's last run; it may be missing."""
        return self.root / NEWEST / _checked(flow)

    def keys_of(self, flow: str) -> Path:
        """The folder of the keys of a flow's runs; it may be missing."""
        return self.root / "keys" / _checked(flow)

    def flow_dir(self, flow: str) -> Path:
        """The folder of a flow; it may be missing.

        Raises:
            NotFoundError: A flow cannot have that name.
        """
        return self._flows / _checked(flow)

    def run_dir(self, flow: str, run_id: str) -> Path:
        """The folder of a run; it may be missing.

        Raises:
            NotFoundError: A flow or a run cannot have that name.
        """
        return self.flow_dir(flow) / _checked(run_id)

    def run_place(self, flow: str, run_id: str, *, removed: bool = False) -> str:
        """`run_dir` or `removed_dir` as text: a Path costs as much as reading a run's summary.

        Raises:
            NotFoundError: A flow or a run cannot have that name.
        """
        within = f"{_checked(flow)}/{REMOVED}" if removed else _checked(flow)
        return f"{self._flows}/{within}/{_checked(run_id)}"

    def removed_dir(self, flow: str, run_id: str = "") -> Path:
        """The folder of a removed run, as long as other runs refer to its files.

        Raises:
            NotFoundError: A flow or a run cannot have that name.
        """
        folder = self.flow_dir(flow) / REMOVED
        return folder / _checked(run_id) if run_id else folder

    def create_run(self, flow: str) -> RunId:
        """Create the folder of a new run, and return the run's unique id.

        The id is the time in microseconds since 1970. If the clock is not past the flow's newest
        id, it is one above that: the newest run is always the one that was started last.

        Raises:
            StoreError: The store cannot be written to.
        """
        path = self.flow_dir(flow)
        try:
            with (
                self.folder("flows", flow, make=True) as runs,
                self.folder(NEWEST, make=True) as newest_ids,
            ):
                reached("run.create")
                run_id = next_run(flow, runs, newest_ids)
                reached("run.created")
        except OSError as error:
            raise StoreError(_explain(path, error)) from error
        return RunId(str(run_id))

    def list_flows(self) -> Listing:
        """The flows that have ever run here, sorted by name, and strays in their folder.

        Raises:
            StoreError: Their folder cannot be read.
        """
        has_blobs = self._has_blobs()  # first: a run exists before its first blob
        listing = _list(self._flows, _may_be_flow)
        if has_blobs and not listing.names and not listing.strays:
            listing.strays.append(Stray(self._flows, _FLOWS_GONE))
        listing.names.sort()
        return listing

    def _has_blobs(self) -> bool:
        """Whether there is a blob, finished or not; also True if the folder cannot be read."""
        try:
            for shard in list(os.scandir(self.blobs)):
                with suppress(FileNotFoundError, NotADirectoryError), os.scandir(shard) as entries:
                    if next(entries, None) is not None:
                        return True
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True
        return False

    def list_runs(self, flow: str) -> Listing:
        """A flow's runs, newest first, and strays in their folder; empty if it never ran.

        Raises:
            StoreError: A folder cannot be read.
        """
        listing = _newest_first(self.flow_dir(flow), _may_be_in_flow)
        if REMOVED in listing.names:
            listing.names.remove(REMOVED)
            listing.strays.extend(_newest_first(self.removed_dir(flow)).strays)
        return listing

    def flows(self) -> list[str]:
        """The names of the flows that have ever run here, sorted.

        Raises:
            StoreError: Their folder cannot be read.
        """
        return sorted(_list(self._flows, _may_be_flow).names)

    def has_flow(self, flow: str) -> bool:
        """Whether a flow has ever run here.

        Raises:
            StoreError: Something of its name cannot be reached, or is not a folder.
        """
        folder = self.flow_dir(flow)
        if os.path.isdir(folder):  # noqa: PTH112 - the alternative raises if that cannot be known
            return True
        for stray in self.list_flows().strays:
            if stray.path == folder:
                raise StoreError(str(stray))
        return False

    def runs(self, flow: str) -> list[RunId]:
        """The ids of a flow's runs, newest first; none for a flow that never ran.

        Raises:
            StoreError: Its folder cannot be read.
        """
        return [RunId(name) for name in self.list_runs(flow).names]

    def newest_runs(self, flow: str) -> Iterator[RunId]:
        """The ids of a flow's runs, newest first; the first 256 mostly without listing the others.

        Raises:
            StoreError: Its folder cannot be read.
        """
        recent = self._recent(flow)
        for number in recent.ids:
            yield RunId(str(number))
        if not recent.is_all:
            known = set(map(str, recent.ids))
            yield from (run_id for run_id in self.runs(flow) if run_id not in known)

    def _recent(self, flow: str) -> RecentRuns:
        folder = self.flow_dir(flow)
        recent = None
        with suppress(OSError), self.newest_id(flow).open("rb", buffering=0) as file:
            recent = read_recent(file.fileno(), lambda: folder.stat().st_mtime_ns)
        return recent or RecentRuns([], is_all=False)

    def has_no_run(self, flow: str, run_id: str, there: Iterable[str] | None = None) -> str:
        """The text of an error: which run is missing, and which runs exist, newest first.

        Raises:
            StoreError: The flow's folder cannot be read.
        """
        others = self.runs(flow) if there is None else there
        named = ", ".join(islice((name for name in others if name != run_id), _NAMED_RUNS))
        latest = f"its latest: {named}" if named else "it has none at all"
        return f"flow {flow} has no run {run_id!r} in the store {self.root}; {latest}"

    def removed_runs(self, flow: str) -> list[RunId]:
        """The ids of removed runs that still have files, newest first.

        Raises:
            StoreError: Their folder cannot be read.
        """
        return [RunId(name) for name in _newest_first(self.removed_dir(flow)).names]


def sign_of_beginning(run_dir: Path) -> str:
    """The name of a file that only a run which has begun can have; empty if there is none.

    Before its first event is on disk, a run has only a journal and files that the engine stored,
    and these only beside the journal.
    """
    try:
        names = sorted(os.listdir(run_dir))  # noqa: PTH208 - only the names are needed
    except OSError:
        return ""
    early = {"journal", _ENGINE_SEGMENT} if "journal" in names else set()
    return next((name for name in names if name not in early), "")


_ADVICE_ON_STRAYS: Final = "restore it, or move it out of the store"
_FLOWS_GONE: Final = (
    "the flows are gone, but there are blobs: restore the flows, or delete the blobs too if nobody "
    "needs them"
)


def _may_be_flow(name: str) -> bool:
    return not name.startswith(".")


def _may_be_run(name: str) -> bool:
    return RUN_ID.fullmatch(name) is not None


def _may_be_in_flow(name: str) -> bool:
    return RUN_ID.fullmatch(name) is not None or name == REMOVED


def _newest_first(folder: Path, may_be: Callable[[str], bool] = _may_be_run) -> Listing:
    listing = _list(folder, may_be)
    listing.names.sort(reverse=True)
    listing.names.sort(key=len, reverse=True)  # an id has no leading zeros, so this is its order
    return listing


def _list(folder: Path, may_be: Callable[[str], bool]) -> Listing:
    """The folders in a folder whose names follow the store's rule, and what else is in it.

    Raises:
        StoreError: It is there, and cannot be read.
    """
    listing = Listing([], [])
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                what = _what_is_wrong(entry) if may_be(entry.name) else _what_it_may_be(entry)
                if what is None:
                    listing.names.append(entry.name)
                elif what:
                    stray = Stray(folder / entry.name, f"{what}; {_ADVICE_ON_STRAYS}")
                    listing.strays.append(stray)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not folder.is_symlink():
            return listing
        raise StoreError(explain(f"the folder {folder}", error, doing="read")) from error
    listing.strays.sort()
    return listing


def _what_it_may_be(entry: os.DirEntry[str]) -> str:
    """Why an entry with such a name is a stray; empty if it does no harm."""
    if entry.name.startswith(".") and entry.is_file(follow_symlinks=False):
        return ""  # a desktop's or a file system's own file, such as .DS_Store and .nfs123
    return "the store never creates such a name"


def _what_is_wrong(entry: os.DirEntry[str]) -> str | None:
    """Why this is not a folder of the store; None if it is one, empty if it has just vanished."""
    try:
        if entry.is_dir(follow_symlinks=False):  # nearly all are; this needs no access to the disk
            return None
        return None if stat.S_ISDIR(entry.stat().st_mode) else "it is not a folder"
    except FileNotFoundError:
        return "it is a link that leads nowhere" if entry.is_symlink() else ""
    except OSError as error:
        return f"it cannot be reached: {error.strerror}"


def _give_name(draft: Path, path: Path) -> None:
    try:
        with suppress(FileExistsError):
            os.link(draft, path)
    except OSError:
        draft.replace(path)  # a file system without hard links


def _text(path: Path) -> str:
    return read_file(path, most=_FORMAT_BYTES).decode(errors="replace")


def _check_version(root: Path, text: str) -> None:
    if not text.isdecimal() or not int(text):
        raise StoreFormatError(
            f"{root} is not a store of asyncflow: its file `format` says {text[:40]!r}; "
            f"write 1 into it if it was damaged, or {_ADVICE}"
        )
    if int(text) > FORMAT:
        raise StoreFormatError(
            f"the store at {root} has format {text}, and this asyncflow reads up to format "
            f"{FORMAT}; upgrade asyncflow, or {_ADVICE}"
        )


def _checked(name: str) -> str:
    if not name or name.startswith(".") or any(letter in name for letter in "/\\\0"):
        raise NotFoundError(
            f"{name!r} cannot name a flow or a run: it must not be empty, begin with a dot, or "
            "hold a slash"
        )
    try:
        size = len(os.fsencode(name))
    except UnicodeEncodeError:
        size = _NAME_BYTES + 1
    if size > _NAME_BYTES:
        raise NotFoundError(
            f"{name[:40]!r}… cannot name a flow or a run: no file can have such a name"
        )
    return name


def _check_place(text: str) -> None:
    """Refuse what is no path at all, which Python's own functions would not name.

    Raises:
        StoreError: It is empty, or no file can have such a name.
    """
    if not text:
        raise StoreError(f"a store cannot be at empty text; {_ADVICE}")
    try:
        is_path = b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        is_path = False
    if not is_path:
        raise StoreError(f"a store cannot be at {text!r}: no path can have that text; {_ADVICE}")


def _explain_making(path: Path, error: OSError) -> str:
    """Why the folder of a store cannot be made; nothing of it was there before."""
    what, above, link = f"the store {path} cannot be made", path.parent, _dead_link(path)
    match error:
        case FileExistsError() | FileNotFoundError() if link:
            target = os.path.realpath(link)
            why = f"{link} leads to {target}, which is not there"
            return f"{what}: {why}; create that, or {_ADVICE}"
        case FileNotFoundError() if not above.is_dir():
            return f"{what}: there is no folder {above}; create that, or {_ADVICE}"
        case FileNotFoundError():
            return f"{what}: {above} takes no new folders: {error.strerror}; {_ADVICE}"
        case PermissionError():
            return (
                f"{what}: {above} may not be written to: {error.strerror}; change its rights, "
                f"or {_ADVICE}"
            )
        case NotADirectoryError():
            return _explain(path, error)
        case _:
            return f"{what}: {reason_of(error)}, or {_ADVICE}"


def _dead_link(path: Path) -> Path | None:
    """The first link in a path that leads to nothing, the path itself included; else None."""
    for each in (*reversed(path.parents), path):
        try:
            each.stat()
        except FileNotFoundError:
            return each if each.is_symlink() else None
        except OSError:
            return None
    return None


def _explain(path: Path, error: OSError) -> str:
    match error:
        case FileNotFoundError() if not path.parent.is_dir():
            return (
                f"the store {path} cannot be used: there is no folder {path.parent}; "
                f"put back what was deleted or moved, or {_ADVICE}"
            )
        case PermissionError():
            return f"the store at {path} may not be used: {error}; change its rights, or {_ADVICE}"
        case NotADirectoryError() | FileExistsError():
            return f"the store cannot be at {path}: {_in_the_way(error)} is not a folder; {_ADVICE}"
        case OSError(errno=errno.ELOOP):
            link = error.filename
            return f"the store at {path} cannot be used: {link}: {error.strerror}; {_ADVICE}"
        case _:
            where = f"{error.filename}: " if error.filename else ""
            return f"the store at {path} cannot be used: {where}{reason_of(error)}, or {_ADVICE}"


def _in_the_way(error: OSError) -> str:
    """The part of the path that should be a folder but is something else."""
    path = Path(error.filename)
    return str(next(each for each in (path, *path.parents) if os.path.lexists(each)))
