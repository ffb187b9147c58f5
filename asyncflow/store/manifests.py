"""The artifacts of tasks that inherit many: each record says only what differs from another one.

A manifest of many names says which are new, others or gone since the manifest of an earlier record
of the same journal, its base. So what a task costs does not grow with what it passes on. Which base
to take follows one rule: what a manifest says is less than half of what its base says by itself.
Else it says that as well, and builds on the base of that. So a chain of bases is as long as the
logarithm of what the last of them says, however many tasks follow each other, and what was said
once is said again as often as that at most.

A base comes before the record that names it, so bases form no circle.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from asyncflow import codec
from asyncflow.errors import JournalError, RecordError
from asyncflow.events.manifests import (
    is_whole,
    pack_changes,
    pack_manifest,
    ref_of,
    unpack_manifest,
    unpack_told,
)
from asyncflow.events.records import unpack_result
from asyncflow.store.files import reason_of
from asyncflow.store.frames import PREFIX_BYTES
from asyncflow.store.warm_journals import WarmJournal
from asyncflow.values import ArtifactRef, Place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from asyncflow.events.manifests import Told
    from asyncflow.store.interface import StoredRun
    from asyncflow.values import Manifest

FEW_NAMES: Final = 16  # below this a manifest says everything: it is hardly longer
MOST_BASES: Final = 32  # of one manifest: each base says twice as much as what builds on it
_KEPT: Final = 256  # manifests of a journal; tasks that follow each other share their bases
_COPIED_INLINE_BYTES: Final = 64  # a longer inline value passes on as a ref into the journal
_NOWHERE: Final = 1 << 62  # behind every record


class RecordedManifest(Mapping[str, ArtifactRef]):
    """The artifacts that one record of a journal names, with those of its base.

    A ref is checked when it is asked for. Longer inline values are named as parts of the journal,
    because other records pass them on.
    """

    __slots__ = ("_file", "_found", "_record", "_refs", "base", "depth", "offset", "told")

    def __init__(
        self, offset: int, record: bytes, file: str, told: Told, base: RecordedManifest | None
    ) -> None:
        """`file` is what refs call the journal, `told` what the record says by itself."""
        self.offset, self.told, self.base = offset, told, base
        self._record, self._file = record, file
        self._refs: dict[str, ArtifactRef] = {}  # those of its own that were asked for
        self._found = 0  # where the last value is: the next that is asked for follows as a rule
        self.depth: int = 0 if base is None else base.depth + 1
        """How many bases there are, one below the other."""

    @property
    def is_small(self) -> bool:
        """Whether what follows it says everything, too."""
        return self.base is None and len(self.told.refs) < FEW_NAMES

    def __getitem__(self, name: str) -> ArtifactRef:
        record = self._record  # taken first: another thread drops it once it has all refs
        ref = self._refs.get(name)
        if ref is not None:
            return ref
        if name in self.told.refs:
            return self._own(name, record)
        if self.base is None or name in self.told.gone:
            raise KeyError(name)
        return self.base[name]

    def __contains__(self, name: object) -> bool:
        if name in self.told.refs:
            return True
        return self.base is not None and name not in self.told.gone and name in self.base

    def __iter__(self) -> Iterator[str]:
        return iter(self.fields() if self.base is not None else self.told.refs)

    def __len__(self) -> int:
        return len(self.fields() if self.base is not None else self.told.refs)

    def whole(self) -> Mapping[str, ArtifactRef]:
        """All of them, checked. Not to be changed.

        Raises:
            RecordError: A ref is not valid.
        """
        if self.base is not None:
            return {name: self[name] for name in self}
        if len(self._refs) < len(self.told.refs):
            self._refs = {name: self[name] for name in self.told.refs}
            self._record = b""  # nothing of it is needed any more
        return self._refs

    def own(self) -> dict[str, ArtifactRef]:
        """Those that the record itself names.

        Raises:
            RecordError: A ref is not valid.
        """
        return {name: self[name] for name in self.told.refs}

    def fields(self) -> dict[str, Any]:
        """All of them as its record and those of its bases have them, unchecked."""
        found: dict[str, Any] = {}
        layers: list[RecordedManifest] = []
        layer: RecordedManifest | None = self
        while layer is not None:
            layers.append(layer)
            layer = layer.base
        for each in reversed(layers):
            _change(found, each.told)
        return found

    def _own(self, name: str, record: bytes) -> ArtifactRef:
        try:
            ref = self._passed_on(ref_of(self.told.refs[name]), record)
        except (RecordError, ValueError) as error:
            message = f"the record at byte {self.offset} of {self._file} names no value {name!r}"
            raise RecordError(f"{message}: {error}") from error
        self._refs[name] = ref
        return ref

    def _passed_on(self, ref: ArtifactRef, record: bytes) -> ArtifactRef:
        if ref.place != Place.INLINE or len(ref.data) <= _COPIED_INLINE_BYTES:
            return ref
        found = record.find(ref.data, self._found)
        self._found = found = found if found >= 0 else record.index(ref.data)
        return ref._replace(
            place=int(Place.SEGMENT),
            digest=codec.digest(ref.data),
            file=self._file,
            offset=self.offset + PREFIX_BYTES + found,
            data=b"",
        )

    def __repr__(self) -> str:
        return f"<RecordedManifest at {self.offset}: {len(self.told.refs)} names of {len(self)}>"


def _change(found: dict[str, Any], told: Told) -> None:
    for name in told.gone:
        found.pop(name, None)
    found.update(told.refs)


class JournalManifests:
    """The manifests of one run's journal, as far as they were asked for. Threads may share one."""

    def __init__(self, read: Callable[[int], bytes], file: str) -> None:
        """Read nothing yet.

        Args:
            read: Reads the record at an offset, and raises what its caller should see.
            file: What refs call the journal.
        """
        self._read, self._file = read, file
        self._known: OrderedDict[int, RecordedManifest] = OrderedDict()

    def at(self, offset: int) -> RecordedManifest:
        """What the record at this offset passes on.

        Raises:
            RecordError: It passes nothing on, or what it says is not valid.
        """
        return self._base(offset, _NOWHERE)

    def of(self, offset: int, record: bytes, manifest: bytes) -> RecordedManifest:
        """What the record at this offset passes on, which was read already.

        Raises:
            RecordError: What it says is not valid.
        """
        told = unpack_told(manifest)
        base = self._base(told.base, offset) if told.base else None
        found = RecordedManifest(offset, record, self._file, told, base)
        if base is not None or len(told.refs) >= FEW_NAMES:  # else it is nobody's base
            self._known[offset] = found
            self._forget()
        return found

    def check(self, offset: int, record: bytes, manifest: bytes) -> None:
        """Check that a record, which was read already, changes a manifest that is there.

        Raises:
            RecordError: It changes none.
        """
        if not is_whole(manifest):
            try:
                self.of(offset, record, manifest)
            except RecordError:
                raise
            except JournalError as error:
                message = f"its manifest changes one that cannot be read: {error}"
                raise RecordError(message) from error

    def resolved(self, manifest: bytes) -> Manifest:
        """All refs of a manifest of this journal, checked, as its records have them.

        Raises:
            RecordError: It is not valid.
        """
        if is_whole(manifest):
            return unpack_manifest(manifest)
        told = unpack_told(manifest)
        found = self.at(told.base).fields()
        _change(found, told)
        return {name: ref_of(raw) for name, raw in found.items()}

    def said_again(self, manifest: bytes) -> Manifest:
        """All refs of a manifest of this journal, checked, for another journal.

        Longer inline values of its bases are named as parts of this journal, so that they are not
        copied from record to record.

        Raises:
            RecordError: It is not valid.
        """
        told = unpack_told(manifest)
        found: dict[str, ArtifactRef] = {**self.at(told.base)} if told.base else {}
        _change(found, told)
        return {**found, **{name: ref_of(raw) for name, raw in told.refs.items()}}

    def from_sibling(self, told: Told, sibling: Told, at: int) -> bytes:
        """Pack what differs from another manifest that changes the same base.

        `at` is where another journal says all of the sibling's.

        Raises:
            RecordError: A ref is not valid.
        """
        base = self.at(told.base)
        others = (*sibling.refs, *sibling.gone)
        refs = {name: base[name] for name in others if name in base and name not in told.gone}
        refs |= {name: ref_of(raw) for name, raw in told.refs.items()}
        gone = (told.gone | sibling.refs.keys()) - sibling.gone - refs.keys()
        return pack_changes(at, refs, gone)

    def _base(self, at: int, above: int) -> RecordedManifest:
        """The manifest at an offset, which has to come before `above`; none is read twice."""
        read: list[tuple[int, bytes, Told]] = []
        found: RecordedManifest | None = None
        while at and found is None:
            if at >= above:
                message = f"its manifest changes that of the record at byte {at}"
                raise RecordError(f"{message}, which does not come before it")
            found = self._known.get(at)
            if found is not None:
                with suppress(KeyError):  # another thread has just forgotten it
                    self._known.move_to_end(at)
                break
            if len(read) > MOST_BASES:
                break
            record = self._read(at)
            told = unpack_told(unpack_result(record).outcome.manifest)
            read.append((at, record, told))
            above, at = at, told.base
        if len(read) + (found.depth if found is not None else 0) > MOST_BASES:
            message = f"its manifest changes one that changes one, more than {MOST_BASES} times"
            raise RecordError(message)
        for offset, record, told in reversed(read):
            found = RecordedManifest(offset, record, self._file, told, found)
            self._known[offset] = found
        self._forget()
        assert found is not None, "an offset is above 0"  # noqa: S101 - what callers ask for
        return found

    def _forget(self) -> None:
        while len(self._known) > _KEPT:
            self._known.popitem(last=False)

    def __repr__(self) -> str:
        return f"<JournalManifests of {self._file}: {len(self._known)} known>"


class _LazyJournal:
    """Opens the journal of a run when its first record is read."""

    def __init__(self, run: StoredRun) -> None:
        self._run, self._journal = run, WarmJournal(run)

    def read(self, offset: int) -> bytes:
        """The record at an offset.

        Raises:
            JournalError: It cannot be read.
        """
        try:
            return self._journal.open().read_one(offset)
        except (JournalError, OSError) as error:
            reason = reason_of(error) if isinstance(error, OSError) else str(error)
            message = f"the journal of {self._run.pathspec} cannot be read: {reason}"
            raise JournalError(message) from error


def manifests_of(run: StoredRun) -> JournalManifests:
    """The manifests of a run's journal, which is opened when the first of them is asked for."""
    return JournalManifests(_LazyJournal(run).read, run.journal_file)


class ChangingManifest(MutableMapping[str, ArtifactRef]):
    """The artifacts that a task would pass on now: what it has inherited, and what differs."""

    __slots__ = ("_gone", "_inherited", "_refs")

    def __init__(
        self, inherited: RecordedManifest, refs: Mapping[str, ArtifactRef] | None = None
    ) -> None:
        """`refs` differ from those that were inherited."""
        self._inherited = inherited
        self._refs = dict(refs or ())
        self._gone: set[str] = set()

    def __getitem__(self, name: str) -> ArtifactRef:
        ref = self._refs.get(name)
        if ref is not None:
            return ref
        if name in self._gone:
            raise KeyError(name)
        return self._inherited[name]

    def __setitem__(self, name: str, ref: ArtifactRef) -> None:
        if self._inherited.get(name) == ref:
            self._refs.pop(name, None)
        else:
            self._refs[name] = ref
        self._gone.discard(name)

    def __delitem__(self, name: str) -> None:
        if name not in self:
            raise KeyError(name)
        self._refs.pop(name, None)
        if name in self._inherited:
            self._gone.add(name)

    def __contains__(self, name: object) -> bool:
        return name in self._refs or (name not in self._gone and name in self._inherited)

    def __iter__(self) -> Iterator[str]:
        yield from (name for name in self._inherited if name not in self._gone)
        yield from (name for name in self._refs if name not in self._inherited)

    def __len__(self) -> int:
        new = sum(name not in self._inherited for name in self._refs)
        return len(self._inherited) - len(self._gone) + new

    def packed(self) -> bytes:
        """The manifest of the task's record: everything, or what differs from a base.

        Raises:
            RecordError: A ref that has to be said again is not valid.
        """
        refs, gone = self._refs, self._gone
        base: RecordedManifest | None = self._inherited
        while base is not None and base.told.size <= 2 * (len(refs) + len(gone)):
            said = {name: ref for name, ref in base.own().items() if name not in gone}
            refs = {**said, **refs}
            gone = (gone | base.told.gone) - refs.keys()
            base = base.base
        if base is None:
            return pack_manifest(refs)
        return pack_changes(base.offset, refs, {name for name in gone if name in base})

    def __repr__(self) -> str:
        return f"<ChangingManifest: {len(self._refs)} differ, {len(self._gone)} gone>"


def is_base(manifest: bytes) -> bool:
    """Whether other manifests may change this one; others say everything."""
    return not is_whole(manifest) or len(unpack_told(manifest).refs) >= FEW_NAMES


def packed(refs: Mapping[str, ArtifactRef]) -> bytes:
    """Pack the artifacts that a task passes on."""
    return refs.packed() if type(refs) is ChangingManifest else pack_manifest(refs)
