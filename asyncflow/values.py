"""The nouns that all floors share: keys, refs and statuses, as small immutable values.

No I/O, and no logic beyond what a value knows about itself.
"""

from __future__ import annotations

import re
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, Final, NewType

from asyncflow._quick_classes import NamedTuple, dataclass
from asyncflow.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

RunId = NewType("RunId", str)
"""Names a run within its flow: the microseconds since 1970 at which it was started, as text."""

LIMIT_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
"""The names that a limit may have; each is a file name, too."""

MOST_AT_ONCE: Final = 1 << 31
"""The most tasks that a limit may let run at a time: each locks a byte of its own."""

LEAST_PER_SECOND: Final = 1e-6
MOST_PER_SECOND: Final = 1e6
"""The most tasks per second that a limit may allow; its inverse is the least."""


_KEY_CHARACTERS: Final = 500
"""The longest key of a run."""

MOST_ITEM_CHARACTERS: Final = 80
"""The longest text of an item of a foreach that an event has."""

MOST_NODES: Final = 1000
"""The most tasks of a gang: all of them run at a time, each `def` task in a worker of its own."""


def tags_from(stored: Iterable[object]) -> tuple[str, ...]:
    """The tags of a run as stored; anything that is no text is converted to text."""
    return tuple(tag if isinstance(tag, str) else str(tag) for tag in stored)


class Status(StrEnum):
    """The state of a run or a task, as anybody can read it from the store."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"  # its engine is gone without recording an end

    @property
    def finished(self) -> bool:
        """Whether the state is final."""
        return self in {Status.SUCCEEDED, Status.FAILED, Status.CANCELLED}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What is said of a run beside its parameters."""

    priority: int = 0
    """Tasks of runs with a higher priority get workers first."""
    max_running_tasks: int = 0
    """The most tasks of the run that workers may have at a time; 0 for no limit."""
    branch: str | None = None
    """The branch of the project that the run is in, if one was given."""
    production: bool | None = None
    """Whether the run is one of production, if that was said."""
    key: str = ""
    """Names the run: there is one for each key of a flow. Empty for none."""
    again: bool = False
    """Whether to start another run of the key."""

    def __post_init__(self) -> None:
        for name in ("priority", "max_running_tasks"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                message = f"{name} must be a whole number, not {value!r}"
                raise SettingsError(message)
        self._check_key(self.key)
        if self.max_running_tasks < 0:
            message = f"max_running_tasks must be 0 or more, not {self.max_running_tasks}"
            raise SettingsError(message)

    @staticmethod
    def _check_key(key: object) -> None:
        if not isinstance(key, str) or len(key) > _KEY_CHARACTERS or "\0" in key:
            message = (
                f"key must be a text of at most {_KEY_CHARACTERS} characters, not {key!r:.100}"
            )
            raise SettingsError(message)


@dataclass(frozen=True, slots=True)
class TaskKey:
    """One task of one run: a step, and which of its foreach siblings and turns it is."""

    step: str
    path: tuple[int, ...] = ()
    """Which foreach sibling on each level, outermost first. Where a condition has led back to
    earlier steps, a negative number says how often: `(3, -2)` is the second repetition in the
    sibling with index 3, and `(-2, 3)` that sibling in the second repetition."""

    def __str__(self) -> str:
        return self.step + shown_path(self.path)


def indexes_of(path: Sequence[int]) -> tuple[int, ...]:
    """The foreach indexes of a path, outermost first, without its repetitions."""
    return tuple(each for each in path if each >= 0)


def last_index_of(path: Sequence[int]) -> int:
    """The innermost foreach index of a path, 0 where there is none."""
    for each in reversed(path):
        if each >= 0:
            return each
    return 0


def repetitions_of(path: Sequence[int]) -> int:
    """How often steps were repeated on the innermost level of a path."""
    return -path[-1] if path and path[-1] < 0 else 0


def with_repetitions(path: tuple[int, ...], count: int) -> tuple[int, ...]:
    """The same path with another number of repetitions on its innermost level."""
    path = path[:-1] if repetitions_of(path) else path
    return (*path, -count) if count else path


def shown_path(path: Sequence[int]) -> str:
    """A path for people: `[3]` for a foreach index, `#3` for the third turn of a loop."""
    return "".join(f"[{each}]" if each >= 0 else f"#{1 - each}" for each in path)


class Place(IntEnum):
    """Where the bytes of a value lie."""

    INLINE = 0  # in the ref itself, so in the event that carries the ref
    SEGMENT = 1  # a range of a file in the run's folder: a worker's segment, or the journal
    BLOB = 2  # a content-addressed file of its own


class Encoding(IntEnum):
    """How a value became bytes; see `asyncflow.codec`."""

    PICKLE = 0  # one pickle stream
    BUFFERS = 1  # a pickle stream and its out-of-band buffers, aligned
    ITEMS = 2  # a list or tuple, each item encoded by itself
    BYTES = 3  # a `bytes` object as it is


class ArtifactRef(NamedTuple):
    """Names a stored value: enough to find, check and describe it without reading it.

    A tuple, because refs are packed and unpacked by the hundred thousand. The order of the fields
    is the order on disk.
    """

    place: int
    """A `Place`."""
    encoding: int
    """An `Encoding`."""
    type_name: str
    """The value's type as text, for people: `list`, `numpy.ndarray`."""
    size: int
    """Stored length in bytes."""
    digest: bytes
    """blake3 of the stored bytes, 32 bytes; empty for an inline value: its event has a checksum."""
    file: str
    """For a segment: its file, relative to the folder of the flow (`RUN/w1.seg`); else empty."""
    offset: int
    """For a segment: where in that file the value begins."""
    data: bytes
    """For an inline value: the stored bytes; else empty."""


def is_same(one: ArtifactRef, other: ArtifactRef) -> bool:
    """Whether two refs name the same bytes, even if stored in different places."""
    return (one.encoding, one.digest, one.data) == (other.encoding, other.digest, other.data)


STREAMED: Final = "iterator"
"""The type of the items of a task that has yielded them: those for the items inherit no list."""

ITEM_DIGEST_BYTES: Final = 8
"""Of the digest that tells whether another attempt has yielded the same item."""

Manifest = dict[str, ArtifactRef]
"""The artifacts of one task by name."""


class Outcome(NamedTuple):
    """The result of a task for the tasks after it; its values are in the store.

    A tuple, because a worker sends one with each report of a success.
    """

    manifest: bytes = b"\x80"
    """The task's artifacts as a packed manifest: the engine passes it on without looking."""
    fanout: int | None = None
    """After `self.next(..., foreach=...)`: how many tasks follow; else None."""
    items: bytes = b""
    """After a foreach: the packed ref of the stored items; its type is `STREAMED` if they were
    yielded."""
    choice: str = ""
    """After a condition: the step that it has chosen; else empty."""
    cards: bytes = b""
    """What the task has put on its cards, as a packed manifest; empty for nothing."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What is known of a task's failure; the user's exception as data, never as a live object."""

    step: str
    task_id: str
    attempt: int
    type: str
    """The exception's type as text, such as `ValueError` or `package.module.Error`."""
    message: str
    traceback: str
    """The traceback's text, cut to the user's own frames."""

    @property
    def exception_type(self) -> str:
        """The same as `type`, under the name that it has in an event."""
        return self.type


@dataclass(frozen=True, slots=True)
class Pathspec:
    """The parts of `Flow/run/step/task/artifact`; parts that are not given are empty."""

    flow: str
    run_id: str = ""
    step: str = ""
    task_id: str = ""
    artifact: str = ""

    @classmethod
    def parse(cls, text: str) -> Pathspec:
        """Read a pathspec.

        Raises:
            ValueError: It has no part, an empty one, or more than five.
        """
        parts = text.strip("/").split("/")
        if len(parts) > len(cls.__slots__) or not all(parts):
            message = (
                f"{text!r} is not a pathspec: Flow/run/step/task/artifact or a beginning of it"
            )
            raise ValueError(message)
        return cls(*parts)

    def __str__(self) -> str:
        parts = (self.flow, self.run_id, self.step, self.task_id, self.artifact)
        return "/".join(part for part in parts if part)
