"""The findings of a verification: damage, notes, and files that belong to nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from asyncflow.store.folders import is_link
from asyncflow.store.maintenance.collect import Amount

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_NAMED: Final = 20  # the most affected objects that are named; the others are counted


@dataclass(slots=True)
class Damage:
    """Something that differs from what was written."""

    file: str
    """Relative to the store."""
    what: str
    affected: list[str] = field(default_factory=list)
    """Pathspecs of affected runs, tasks and artifacts, the first of them; none if it belongs to
    nothing."""
    count: int = 0
    """How many are affected."""

    def add(self, pathspec: str) -> None:
        if pathspec not in self.affected:
            self.count += 1
            if len(self.affected) < _NAMED:
                self.affected.append(pathspec)

    def to_data(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        return {
            "file": self.file,
            "what": self.what,
            "affected": self.affected,
            "affected_count": self.count,
        }


@dataclass(slots=True)
class Verified:
    """What was read, and what was found."""

    runs: int = 0
    tasks: int = 0
    """Finished tasks, including those that were taken over."""
    values: int = 0
    """Different values, without those in the journal itself."""
    size: int = 0
    """The bytes that were read."""
    damage: list[Damage] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Things worth knowing that are not damage."""
    unreferenced: Amount = field(default_factory=Amount)
    """Files that belong to nothing."""

    def to_data(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        return {
            "clean": not self.damage,
            "runs": self.runs,
            "tasks": self.tasks,
            "values": self.values,
            "bytes": self.size,
            "damage": [damage.to_data() for damage in self.damage],
            "notes": self.notes,
            "unreferenced": {"files": self.unreferenced.files, "bytes": self.unreferenced.size},
        }


class Findings:
    """Collects the findings in one store."""

    def __init__(self, root: Path, on_progress: Callable[[Verified], None]) -> None:
        self.verified = Verified()
        self._root, self._on_progress = root, on_progress

    def damage(self, path: Path, what: str, *affected: str) -> Damage:
        """Report damage of a file, and the pathspecs that it affects."""
        found = Damage(self._relative(path), what)
        for pathspec in affected:
            found.add(pathspec)
        self.verified.damage.append(found)
        return found

    def note(self, path: Path, what: str) -> None:
        """Report something that is not damage, but worth knowing."""
        self.verified.notes.append(f"{self._relative(path)}: {what}")

    def note_link(self, path: Path) -> None:
        if is_link(path):
            self.note(path, "a link: files behind it are read, but never changed")

    def unreferenced(self, path: Path, what: str = "") -> None:
        """Count a file that belongs to nothing; `what` becomes a note."""
        try:
            size = path.stat().st_size
        except OSError:
            return
        self.verified.unreferenced.add(size)
        if what:
            self.note(path, what)

    def show_progress(self) -> None:
        """Pass the findings so far to the caller of `verify`."""
        self._on_progress(self.verified)

    def _relative(self, path: Path) -> str:
        return str(path.relative_to(self._root))
