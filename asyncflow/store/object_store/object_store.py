"""A store in an object store: implements `asyncflow.store.interface.RunStore`.

```
PREFIX/format                  the version of this layout as text: `2` and a line feed
PREFIX/newest/FLOW             the id that the flow's last run was given, and a random word
PREFIX/flows/FLOW/RUN/journal/OFFSET    the journal, see `asyncflow.store.object_store.pieces`
PREFIX/flows/FLOW/RUN/claim             while the run is being written
PREFIX/flows/FLOW/RUN/NAME.seg/OFFSET   segments, likewise in pieces
PREFIX/flows/FLOW/RUN/index, summary, times, tags
PREFIX/limits/NAME/shared      a named limit, see `asyncflow.store.object_store.limit_state`
PREFIX/blobs/ab/abcdef…        large values, by the blake3 of their bytes
```

On this machine there is a *cache* for it, which is laid out as a store in a folder. A journal grows
there before it is sent, workers write their values there, and copies of what was read are kept.
"""

from __future__ import annotations

import os
import re
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from asyncflow.errors import JournalError, StoreError, StoreFormatError
from asyncflow.store.files import explain_write, reason_of
from asyncflow.store.layout import Listing, Stray
from asyncflow.store.object_store import values
from asyncflow.store.object_store.addresses import cache_folder, normalized
from asyncflow.store.object_store.connection import Connection
from asyncflow.store.object_store.node_cache import NodeCache
from asyncflow.store.object_store.object_run import ObjectRun
from asyncflow.store.object_store.objects import Objects
from asyncflow.store.object_store.shared_limit import ObjectLimits
from asyncflow.store.object_store.unsent import send_rest
from asyncflow.store.object_store.value_source import blob_name
from asyncflow.store.run_ids import NEWEST, RUN_ID
from asyncflow.store.run_keys import KEYS, key_name
from asyncflow.values import RunId

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from asyncflow.store.interface import Sent
    from asyncflow.store.object_store.held_keys import HeldObjectKey
    from asyncflow.store.object_store.incoming_object_run import IncomingObjectRun
    from asyncflow.store.object_store.uploader import Uploader
    from asyncflow.store.value_interface import ValueSource

FORMAT: Final = 2
_FORMAT_NAME: Final = "format"
_FORMAT_TEXT: Final = f"{FORMAT}\n".encode()
_OPENING_SECONDS: Final = 15.0  # how long a store that does not answer keeps a command waiting
_NAMED_RUNS: Final = 3  # in an error
_DIGITS: Final = re.compile(rb"([1-9][0-9]{0,18})\b")
_ADVICE: Final = "choose another place with --store or ASYNCFLOW_STORE"


class ObjectStore:
    """A store in an object store; see `RunStore` for what its methods promise."""

    def __init__(self, connection: Connection) -> None:
        self.connection: Final = connection
        self.location: Final = connection.location
        self.objects: Final = connection.objects
        self.cache: Final = connection.local.location
        self.node: Final = connection.node
        self._newest: dict[str, tuple[bytes, str]] = {}  # of each flow: what is written, its e_tag

    def __repr__(self) -> str:
        return f"<ObjectStore {self.location}>"

    @classmethod
    def open(
        cls, location: str, *, create: bool, known: bool = False, cache: str = ""
    ) -> ObjectStore:
        """The store at a URL; with `create`, a missing store is created.

        A `known` one was opened a moment ago on this machine, and is not asked whether it is there.
        `cache` is a folder for the cache; if empty, the usual one.

        Raises:
            StoreFormatError: A newer asyncflow wrote it, or it is no store at all.
            StoreError: It is not there, ignores conditions, or cannot be reached.
        """
        location = normalized(location)
        folder = NodeCache(cache or os.fspath(cache_folder(location)))
        objects = Objects.open(location, known=known)
        if not known:
            try:
                _check_format(objects.with_patience(_OPENING_SECONDS), create=create)
            except OSError as error:
                message = f"the store at {location} cannot be used: {error.strerror}; or {_ADVICE}"
                raise StoreError(message) from error
        store = cls(Connection(location, objects, folder))
        if create:
            with suppress(OSError, JournalError):  # it is tried again next time, and by `push`
                store.send_rest()
        return store

    @property
    def scratch(self) -> Path:
        """The folder of the cache."""
        return self.connection.local.root

    @property
    def named_limits(self) -> ObjectLimits:
        """The limits with names that all engines of the store share."""
        objects = self.objects.with_patience(_OPENING_SECONDS)
        return ObjectLimits(objects, self.connection.host, _new_engine)

    def is_at(self, location: str) -> bool:
        """Whether a text is a URL of this store."""
        try:
            return normalized(location) == self.location
        except StoreError:
            return False

    def close(self) -> None:
        """Return when all journals of this process were sent, or cannot be sent now."""
        self.connection.close()

    def send_rest(self) -> list[Sent]:
        """Send what programs on this machine have written, and not sent before they died.

        Raises:
            JournalError: A journal is damaged.
            OSError: The store refuses, or does not answer.
        """
        return send_rest(self.objects, self.connection.local)

    # --- flows and runs -------------------------------------------------------------------------

    def list_flows(self) -> Listing:
        """The flows that have runs here, sorted by name.

        Raises:
            StoreError: They cannot be read.
        """
        return Listing([*self._folders("flows")], [])

    def flows(self) -> list[str]:
        """The names of the flows that have runs here, sorted.

        Raises:
            StoreError: They cannot be read.
        """
        return self.list_flows().names

    def has_flow(self, flow: str) -> bool:
        """Whether a flow has runs here.

        Raises:
            NotFoundError: A flow cannot have that name.
            StoreError: That cannot be found out.
        """
        folder = self._flow_folder(flow)
        try:
            return self.objects.has_any(folder)
        except OSError as error:
            raise self._unreadable(error) from error

    def list_runs(self, flow: str) -> Listing:
        """A flow's runs, newest first, and strays among them; empty if it never ran.

        Raises:
            NotFoundError: A flow cannot have that name.
            StoreError: They cannot be read.
        """
        listing = Listing([], [])
        folder = self._flow_folder(flow)
        for name in self._folders(folder):
            if RUN_ID.fullmatch(name):
                listing.names.append(name)
            elif not name.startswith("."):
                what = "the store never creates such a name; move it out of the store"
                listing.strays.append(Stray(Path(folder, name), what))
        listing.names.sort(key=int, reverse=True)
        return listing

    def runs(self, flow: str) -> list[RunId]:
        """The ids of a flow's runs, newest first; none for a flow that never ran.

        Raises:
            NotFoundError: A flow cannot have that name.
            StoreError: They cannot be read.
        """
        return [RunId(name) for name in self.list_runs(flow).names]

    def newest_runs(self, flow: str) -> Iterator[RunId]:
        """The ids of a flow's runs, newest first.

        Raises:
            NotFoundError: A flow cannot have that name.
            StoreError: They cannot be read.
        """
        return iter(self.runs(flow))

    def has_no_run(self, flow: str, run_id: str, there: Iterable[str] | None = None) -> str:
        """The text of an error: which run is missing, and which runs exist, newest first.

        Raises:
            StoreError: The flow's runs cannot be read.
        """
        others = [name for name in (self.runs(flow) if there is None else there) if name != run_id]
        named = ", ".join(others[:_NAMED_RUNS])
        latest = f"its latest: {named}" if named else "it has none at all"
        return f"flow {flow} has no run {run_id!r} in the store {self.location}; {latest}"

    def run(self, flow: str, run_id: str, *, removed: bool = False) -> ObjectRun:
        """A run, which may be missing; a `removed` one has only what other runs still need.

        Raises:
            NotFoundError: A flow or a run cannot have that name.
        """
        return ObjectRun(self, self.connection, flow, run_id, removed=removed)

    def make_run(self, flow: str) -> ObjectRun:
        """Take an id for a new run, which is above that of every other run of the flow.

        Raises:
            NotFoundError: A flow cannot have that name.
            StoreError: The store cannot be written to.
        """
        self._flow_folder(flow)
        try:
            number = self._next_id(flow)
            with self.connection.local.folder("flows", flow, make=True) as folder:
                folder.make(str(number))
        except OSError as error:
            raise StoreError(explain_write(f"the store {self.location}", error)) from error
        return self.run(flow, str(number))

    @contextmanager
    def holding_key(self, flow: str, key: str) -> Iterator[HeldObjectKey]:
        """Hold a key within the block, see `asyncflow.store.object_store.held_keys`.

        Raises:
            NotFoundError: A flow cannot have that name.
            StoreError: The store cannot be written to, or somebody holds the key for long.
        """
        from asyncflow.store.object_store.held_keys import take

        try:
            held = take(self.objects, self._name_of_key(flow, key))
        except OSError as error:
            raise StoreError(explain_write(f"the store {self.location}", error)) from error
        try:
            yield held
        finally:
            with suppress(OSError, StoreError):  # after a minute, others take it all the same
                held.let_go()

    def run_of_key(self, flow: str, key: str) -> str:
        """The id of the run that was given a key; empty for none.

        Raises:
            NotFoundError: A flow cannot have that name.
            StoreError: That cannot be read.
        """
        from asyncflow.store.object_store.held_keys import run_of_key

        try:
            return run_of_key(self.objects, self._name_of_key(flow, key))
        except OSError as error:
            raise self._unreadable(error) from error

    def _name_of_key(self, flow: str, key: str) -> str:
        self._flow_folder(flow)
        return f"{KEYS}/{flow}/{key_name(key)}"

    def receive(self, flow: str, run_id: str, *, removed: bool = False) -> IncomingObjectRun:
        """Objects of a run that nobody finds as long as the first piece of its journal is missing.

        Raises:
            NotFoundError: A flow or a run cannot have that name.
        """
        from asyncflow.store.object_store.incoming_object_run import IncomingObjectRun

        folder = self.run(flow, run_id, removed=removed).folder
        return IncomingObjectRun(self.connection, flow, run_id, folder)

    def _next_id(self, flow: str) -> int:
        name = f"{NEWEST}/{flow}"
        data, e_tag = self._newest.pop(flow, (b"", ""))  # what this one has written, if it is still
        while True:
            if not e_tag:
                try:
                    data, facts = self.objects.get_with_facts(name)
                    e_tag = facts.e_tag
                except FileNotFoundError:
                    data = b""
            found = _DIGITS.match(data)
            newest = int(found[1]) if found else None
            number = time.time_ns() // 1000
            if newest is None or number <= newest:
                number = max(number, 1 + max((newest or 0, *map(int, self.runs(flow)))))
            # The random word tells apart two programs that want the same number.
            line = b"%d %s\n" % (number, os.urandom(8).hex().encode())
            if e_tag:
                written = self.objects.replace(name, line, e_tag)
            else:
                written = self.objects.create_version(name, line)
            if written is not None:
                self._newest[flow] = line, written
                return number
            e_tag = ""

    def _flow_folder(self, flow: str) -> str:
        return os.fspath(
            self.connection.local.flow_dir(flow).relative_to(self.connection.local.root)
        )

    def _folders(self, folder: str) -> Iterable[str]:
        try:
            return self.objects.folders(folder)
        except OSError as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: OSError) -> StoreError:
        return StoreError(f"the store {self.location} cannot be read: {reason_of(error)}")

    # --- values ---------------------------------------------------------------------------------

    def value_source(self, flow: str) -> ValueSource:
        """Reads the bytes of a flow's values.

        Raises:
            NotFoundError: A flow cannot have that name.
        """
        return values.source_of(self.connection, flow)

    def uploader(self) -> Uploader:
        """Uploads what the workers of this process write.

        Raises:
            StoreError: The cache cannot be written to.
        """
        return self.connection.uploader

    def blob_size(self, digest: bytes) -> int:
        """The length of a large value in bytes.

        Raises:
            FileNotFoundError: There is none with this digest.
        """
        try:
            return self.connection.local.blob_size(digest)
        except FileNotFoundError:
            return self.objects.head(blob_name(digest)).size


def _new_engine() -> str:
    return os.urandom(6).hex()


def _check_format(objects: Objects, *, create: bool) -> None:
    """Refuse a store of another version, or one that does not keep what was promised.

    Raises:
        StoreFormatError: It is not a store that this version can use.
        StoreError: There is none, or it ignores conditions.
    """
    location = objects.location
    try:
        text = objects.get_range(_FORMAT_NAME, 0, 100)
    except FileNotFoundError:
        if not create:
            message = f"there is no store at {location}; run a flow first, or {_ADVICE}"
            raise StoreError(message) from None
        probe(objects)
        text = objects.create(_FORMAT_NAME, _FORMAT_TEXT) or _FORMAT_TEXT
    found = text.decode(errors="replace").strip()
    if not found.isdecimal() or not int(found):
        message = f"{location} is not a store of asyncflow: its `format` says {found[:40]!r}"
        raise StoreFormatError(f"{message}; {_ADVICE}")
    if int(found) != FORMAT:
        message = f"the store at {location} has format {found}, and this asyncflow reads {FORMAT}"
        raise StoreFormatError(f"{message}; upgrade asyncflow, or {_ADVICE}")


def check_conditions(location: str) -> None:
    """Refuse a store that ignores conditions, also one that is in use.

    Raises:
        StoreError: It does, or it cannot be used at all.
    """
    try:
        probe(Objects.open(location).with_patience(_OPENING_SECONDS))
    except OSError as error:
        raise StoreError(f"the store at {location} cannot be used: {error.strerror}") from error


def probe(objects: Objects) -> None:
    """Refuse a store that ignores conditions: there, two programs could write one run.

    Raises:
        StoreError: It does.
        OSError: It refuses, or does not answer.
    """
    name = f"probe/{os.urandom(8).hex()}"
    try:
        ignored = ""
        first = objects.create_version(name, b"first")
        if first is None or objects.create(name, b"second") is None:
            ignored = "creates an object that exists (`If-None-Match: *`)"
        elif objects.replace(name, b"third", first) is None:
            ignored = "does not replace an object that has not changed (`If-Match`)"
        elif objects.replace(name, b"fourth", first) is not None:
            ignored = "replaces an object that has changed (`If-Match`)"
    finally:
        with suppress(OSError):
            objects.delete([name])
    if ignored:
        message = (
            f"{objects.location} cannot hold a store: it {ignored}, so two programs could write "
            "the same run; use a server that heeds conditions"
        )
        raise StoreError(message)
