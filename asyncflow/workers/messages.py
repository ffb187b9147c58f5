"""The messages between engine and workers, in msgpack. No I/O.

An order (engine to worker) is one message of a packet socket: the kernel keeps messages apart,
hands each to one reader, and lets the engine take back those that the worker has not yet received.
Worker and engine may take orders in turn, so no order may depend on an earlier one. A report
(worker to engine) travels in a stream of msgpack arrays, which delimit themselves.

Every message is an array whose first element is its kind. `run` is the engine's own short number
for a run, valid for its life. Offsets are those of records in the run's journal: a worker reads
there what its task inherits, so that refs need not pass through the engine again.
"""

from __future__ import annotations

from enum import IntEnum
from functools import partial
from itertools import repeat
from struct import Struct
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import msgpack

from asyncflow._quick_classes import NamedTuple
from asyncflow.values import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


class Order(IntEnum):
    """A message from the engine to a worker."""

    START_TASK = 1
    CLOSE_RUN = 2
    CANCEL_TASK = 3
    SHUT_DOWN = 4
    PING = 5
    YIELD_MORE = 6
    MORE_INPUTS = 7
    START_ITEMS = 8


class Report(IntEnum):
    """A message from a worker to the engine."""

    READY = 1
    STARTED = 2
    LOGGED = 3
    SUCCEEDED = 4
    FAILED = 5
    WARNED = 6
    OPENED = 7
    STOPPING = 8
    BLOCKED = 9
    PONG = 10
    GAVE_BACK = 11
    YIELDED = 12
    WROTE = 13
    STORING = 14
    NOT_STORED = 15
    CARDS_CHANGED = 16
    TO_STORE = 17
    GARBLED = 18


MAX_ORDER_BYTES: Final = 200_000  # a packet socket takes none above its buffer, 208 KiB by default
MAX_INPUTS_IN_ORDER: Final = 4096  # 32 KiB of offsets; a wider join finds its inputs in a file

ITEMS_AHEAD: Final = 256
"""So many items a generator may have yielded beyond those for which a task has begun."""

DESCRIPTORS_CLOSED: Final = 213
"""The exit status of a worker whose step has closed the worker's own file descriptors."""


class AttemptKey(NamedTuple):
    """Identifies an attempt: run, task and attempt number."""

    run: int
    task: int
    attempt: int


class Opening(NamedTuple):
    """Where a run is and how to run it. The rest is in the first record of its journal."""

    run: int
    store: str
    flow: str
    run_id: str
    surroundings: Sequence[Any]
    """The run's environment: working directory, `sys.path`, environment variables."""
    durable: bool = False
    """Whether values are synced to disk before their task is reported."""
    blocked_seconds: float = 0.0
    """How long an async step may block its loop before that is reported; 0 for no report."""
    variables: Mapping[str, Mapping[str, str]] = {}
    """The environment variables that `@environment` gives to steps, by the step's name."""
    cache: str = ""
    """For a store elsewhere: the folder on the worker's machine that has copies of its files."""
    node: str = ""
    """For a store elsewhere: names whoever uploads what is written to `cache`."""
    hidden_code: Mapping[str, Sequence[Sequence[Any]]] | None = {}
    """What asterisks in the flow's stored code stand for; None if that is too much to be told."""
    node_folder: str = ""
    """A folder of the worker's own machine, for files of all runs; the executor names it. Empty if
    the worker has the engine's files: its working directory and the flow's files."""
    replica: str = ""
    """A local folder with the pieces of the journal that the run's tasks here need; empty where the
    journal itself is read."""


class StartTask(NamedTuple):
    """One attempt of one task."""

    key: AttemptKey
    step: str
    path: Sequence[int]
    """Its foreach indexes, outermost first."""
    stack: Sequence[int]
    """For each level of `path`, the offset of the record of the task that fanned out."""
    inputs: bytes
    """The u64 offsets of the tasks before this one; empty if `inputs_at` is given."""
    inputs_at: Sequence[Any]
    """`(file, crc32)`: the file within the run's folder that has a wide join's inputs."""
    caught: Sequence[Any] = ()
    """Attempt, type, message and traceback of the failure to pass on instead of running the
    step."""
    opening: Sequence[Any] = ()
    """The run's `Opening`; empty once the worker has reported a task of the run."""
    awaits: bool = False
    """Whether further inputs will come, by `MoreInputs`. Then `inputs` are as there."""


class StartItems(NamedTuple):
    """The first attempts of tasks for consecutive items of one foreach, each to be claimed.

    A task of it may begin when its claim, eight bytes of a pipe, was read: by the worker, which
    then runs it, or by the worker's pool, which then has it back. So a worker has many tasks by one
    packet, and is bound to none that it has not begun. On a cluster, the pool is that of the node's
    agent.
    """

    run: int
    first: int
    """The id of the first task; those of the others follow."""
    number: int
    """How many they are."""
    step: str
    outer: Sequence[int]
    """Their path, without the index of the item."""
    item: int
    """The index of the first task's item."""
    stack: Sequence[int]
    """As in `StartTask`, like what follows."""
    inputs: bytes
    opening: Sequence[Any] = ()

    def keys(self) -> list[AttemptKey]:
        """The attempts, in their order."""
        tasks = range(self.first, self.first + self.number)
        return list(map(_new_key, zip(repeat(self.run), tasks, repeat(0), strict=False)))

    def order(self, task: int) -> StartTask:
        """The order for one of the tasks."""
        run, first, _, step, outer, item, stack, inputs, opening = self
        key, path = _new_key((run, task, 0)), (*outer, item + task - first)
        return _new_start_task((key, step, path, stack, inputs, (), (), opening, False))

    def orders(self) -> list[StartTask]:
        """The orders for all of them."""
        return [self.order(task) for task in range(self.first, self.first + self.number)]

    def claims(self) -> bytes:
        """The claims for all of them, to be written to the pipe before this is sent."""
        run, first = self.run, self.first
        return b"".join([_pack_claim(run, task) for task in range(first, first + self.number)])


_CLAIM: Final = Struct("<II")
_pack_claim: Final = _CLAIM.pack
CLAIM_BYTES: Final = _CLAIM.size
unpack_claim: Final[Callable[[bytes], tuple[int, int]]] = _CLAIM.unpack
"""The run and the task of one claim."""


def unpack_claims(data: bytes) -> list[tuple[int, int]]:
    """The runs and tasks of claims that were read from the pipe."""
    return list(_CLAIM.iter_unpack(data))


class CloseRun(NamedTuple):
    """No further task of the run will come."""

    run: int


class CancelTask(NamedTuple):
    """Stop an async task."""

    key: AttemptKey
    is_late: bool = False
    """Whether its time is over; else its run is ending."""


class ShutDown(NamedTuple):
    """Finish the running tasks and exit."""


class YieldMore(NamedTuple):
    """Let an attempt's generator go on."""

    key: AttemptKey
    upto: int
    """How many items it may have yielded in all before it waits for another such order."""


class MoreInputs(NamedTuple):
    """Tell a join that reads its inputs as they arrive what has arrived."""

    key: AttemptKey
    inputs: bytes
    """For each of them three u64: the offsets of its result and of the record with its item, and
    the item's index."""
    are_last: bool
    """Whether no more will come."""


class Ping(NamedTuple):
    """Ask a silent worker for a sign of life; all its waiting orders were taken back."""


OrderMessage = (
    StartTask | StartItems | CloseRun | CancelTask | ShutDown | Ping | YieldMore | MoreInputs
)


def begun_by(order: OrderMessage) -> list[AttemptKey]:
    """The attempts that a worker begins by this order."""
    if isinstance(order, StartTask):
        return [order.key]
    return order.keys() if isinstance(order, StartItems) else []


Message = TypeVar("Message")

_ORDERS: Final[dict[int, type[OrderMessage]]] = {
    Order.START_TASK: StartTask,
    Order.START_ITEMS: StartItems,
    Order.CLOSE_RUN: CloseRun,
    Order.CANCEL_TASK: CancelTask,
    Order.SHUT_DOWN: ShutDown,
    Order.PING: Ping,
    Order.YIELD_MORE: YieldMore,
    Order.MORE_INPUTS: MoreInputs,
}
_ORDER_KINDS: Final = {cls: int(kind) for kind, cls in _ORDERS.items()}


class Ready(NamedTuple):
    """The worker has started and takes orders."""

    pid: int


class Started(NamedTuple):
    """An attempt has begun."""

    key: AttemptKey
    item: str = ""
    """Within a foreach: a short text for the task's item of the innermost one; else empty."""


class Opened(NamedTuple):
    """The worker has imported a flow's module; from now on its tasks' time counts."""

    run: int


class Logged(NamedTuple):
    """Output of an attempt: its worker reports that of async steps, the pool that of its files."""

    key: AttemptKey
    stream: int
    data: bytes


class Usage(NamedTuple):
    """What an attempt has used, as far as the system can tell."""

    cpu_seconds: float | None = None
    """See `TaskFailed.cpu_seconds`."""
    peak_memory: int | None = None
    """In bytes; see `TaskFailed.peak_memory`."""


UNKNOWN_USAGE: Final = Usage()


class Succeeded(NamedTuple):
    """An attempt is done; its artifacts are in the store."""

    key: AttemptKey
    seconds: float
    outcome: Outcome
    spooled: Sequence[int]
    """Sizes of the worker's two spool files now: output up to there belongs to this task."""
    usage: Usage = UNKNOWN_USAGE


class Failed(NamedTuple):
    """An attempt failed."""

    key: AttemptKey
    seconds: float
    exception_type: str
    message: str
    traceback: str
    may_retry: bool
    """Whether the step's `@retry` covers the exception."""
    spooled: Sequence[int]
    outcome: Outcome | None = None
    """The task's result in spite of the failure, if its step's `@catch` handles it."""
    left: bytes = b""
    """The packed artifacts that the task leaves, if it has failed for good; else empty."""
    usage: Usage = UNKNOWN_USAGE
    cards: bytes = b""
    """What it has put on its cards, as a packed manifest."""


class Warned(NamedTuple):
    """A problem that no task has caused; it goes to the library's own log."""

    event: str
    facts: dict[str, Any]


class Stopping(NamedTuple):
    """The worker's loop has received the order to cancel an async task."""

    key: AttemptKey


class Blocked(NamedTuple):
    """An async task blocks its worker's event loop."""

    key: AttemptKey
    seconds: float
    """How long it has been blocked."""
    where: str
    """File, line, function and text; empty when the loop turns again."""


class Pong(NamedTuple):
    """The answer to `Ping`: the worker accepts orders."""


class Garbled(NamedTuple):
    """Reports of the worker may be lost: an exception has broken off what was handling them.

    The executor says so, not the worker. What has become of the worker's attempts is unknown.
    """

    by: str
    """The exception, in a few words."""


class GaveBack(NamedTuple):
    """An attempt will not begin here: it was taken back, or its worker's loop is blocked."""

    key: AttemptKey


class Yielded(NamedTuple):
    """The generator of an attempt has given more items for its foreach; they are in the store."""

    key: AttemptKey
    first: int
    """The index of the first of them."""
    number: int
    """How many they are."""
    items: bytes
    """The packed ref of these items."""
    manifest: bytes
    """In the attempt's first report of this kind: the packed artifacts that their tasks inherit."""
    digests: bytes
    """The digest of each of them, `ITEM_DIGEST_BYTES` long."""


class CardsChanged(NamedTuple):
    """An attempt has put something on its cards that is to be seen now; it is in the store."""

    key: AttemptKey
    cards: bytes
    """What is on all of its cards, as a packed manifest."""


class Wrote(NamedTuple):
    """What the next reports name is in the node's cache, and has to be uploaded first.

    Whoever uploads it takes this report out of the stream: no scheduler sees it.
    """

    segment: str
    """The path of the node's segment of this run within the store; empty if `end` is 0."""
    end: int
    """The segment must be stored up to here."""
    blobs: Sequence[bytes]
    """The digests of large values."""


class ToStore(NamedTuple):
    """An attempt is done; its artifacts are in the node's cache, and have to be uploaded first.

    It is a `Wrote` without blobs and a `Succeeded` in one, which most tasks with values have. The
    latter is packed: as bytes it costs nothing while it is held.
    """

    key: AttemptKey
    seconds: float
    spooled: Sequence[int]
    """These are as in the report."""
    segment: str
    end: int
    """These are as in `Wrote`."""
    report: bytes
    """The packed `Succeeded`, to be passed on once the segment is stored up to `end`."""


class Storing(NamedTuple):
    """An attempt's step has ended, and its worker goes on; its values are being uploaded."""

    key: AttemptKey
    size: int
    """How many bytes of its worker wait to be uploaded, about."""


class NotStored(NamedTuple):
    """An attempt's step has ended, but its values could not be uploaded."""

    key: AttemptKey
    why: str


ReportMessage = (
    Ready
    | Started
    | Opened
    | Logged
    | Succeeded
    | Failed
    | Warned
    | Stopping
    | Blocked
    | Pong
    | Garbled
    | GaveBack
    | Yielded
    | CardsChanged
    | Wrote
    | ToStore
    | Storing
    | NotStored
)

_REPORTS: Final[dict[int, type[ReportMessage]]] = {
    Report.READY: Ready,
    Report.STARTED: Started,
    Report.LOGGED: Logged,
    Report.SUCCEEDED: Succeeded,
    Report.FAILED: Failed,
    Report.OPENED: Opened,
    Report.WARNED: Warned,
    Report.STOPPING: Stopping,
    Report.BLOCKED: Blocked,
    Report.PONG: Pong,
    Report.GARBLED: Garbled,
    Report.GAVE_BACK: GaveBack,
    Report.YIELDED: Yielded,
    Report.WROTE: Wrote,
    Report.STORING: Storing,
    Report.NOT_STORED: NotStored,
    Report.CARDS_CHANGED: CardsChanged,
    Report.TO_STORE: ToStore,
}
_REPORT_KINDS: Final = {cls: int(kind) for kind, cls in _REPORTS.items()}


_new_key: Final = partial(tuple.__new__, AttemptKey)  # half the time of `_make`
new_outcome: Final = partial(tuple.__new__, Outcome)
new_usage: Final = partial(tuple.__new__, Usage)
_new_start_task: Final = partial(tuple.__new__, StartTask)
new_started: Final = partial(tuple.__new__, Started)
new_succeeded: Final = partial(tuple.__new__, Succeeded)
new_storing: Final = partial(tuple.__new__, Storing)
_new_to_store: Final = partial(tuple.__new__, ToStore)


def _failed(key: Sequence[int], *values: Any) -> Failed:
    report = Failed(_new_key(key), *values)
    report = report._replace(usage=new_usage(report.usage))
    return report if report.outcome is None else report._replace(outcome=Outcome(*report.outcome))


def _start_task(key: Sequence[int], *values: Any) -> StartTask:
    return _new_start_task((_new_key(key), *values))


def _of_attempt(kind: Callable[..., Message]) -> Callable[..., Message]:
    """What makes a message of this kind, whose first field is the key of an attempt."""

    def make(key: Sequence[int], *values: Any) -> Message:
        return kind(_new_key(key), *values)

    return make


_READERS: Final[dict[int, Callable[..., ReportMessage]]] = {
    **_REPORTS,
    Report.FAILED: _failed,
    Report.LOGGED: _of_attempt(Logged),
    Report.STOPPING: _of_attempt(Stopping),
    Report.BLOCKED: _of_attempt(Blocked),
    Report.GAVE_BACK: _of_attempt(GaveBack),
    Report.YIELDED: _of_attempt(Yielded),
    Report.STORING: _of_attempt(Storing),
    Report.NOT_STORED: _of_attempt(NotStored),
    Report.CARDS_CHANGED: _of_attempt(CardsChanged),
}
"""Makes a report from its fields, for each kind."""


_ORDER_READERS: Final[dict[int, Callable[..., OrderMessage]]] = {
    **_ORDERS,
    Order.START_TASK: _start_task,
    Order.CANCEL_TASK: _of_attempt(CancelTask),
    Order.YIELD_MORE: _of_attempt(YieldMore),
    Order.MORE_INPUTS: _of_attempt(MoreInputs),
}


# One packer for all messages: `packb` makes one for each, which takes half of its time. Names of
# files and environment variables need not be UTF-8.
_pack_order: Final[Callable[..., Any]] = msgpack.Packer(unicode_errors="surrogateescape").pack
_pack_report: Final[Callable[..., Any]] = msgpack.Packer().pack
_WROTE: Final = int(Report.WROTE)
_STARTED: Final = int(Report.STARTED)
_SUCCEEDED: Final = int(Report.SUCCEEDED)
_TO_STORE: Final = int(Report.TO_STORE)


def pack_order(message: OrderMessage) -> bytes:
    order = _ORDER_KINDS[type(message)], *message
    return cast("bytes", _pack_order(order))


def unpack_order(packet: bytes | memoryview) -> OrderMessage:
    kind, *values = msgpack.unpackb(packet, unicode_errors="surrogateescape")
    return _ORDER_READERS[kind](*values)


def pack_report(message: ReportMessage) -> bytes:
    """A report as the next bytes of the stream."""
    packed: bytes = _pack_report((_REPORT_KINDS[type(message)], *message))
    return packed


def pack_wrote(segment: str, end: int, blobs: Sequence[bytes]) -> bytes:
    """A `Wrote`, packed."""
    packed: bytes = _pack_report((_WROTE, segment, end, blobs))
    return packed


def pack_to_store(report: Succeeded, segment: str, end: int) -> bytes:
    """A `ToStore`, packed, which nobody makes otherwise: most tasks have one."""
    key, seconds, _, spooled, _ = report
    what = _TO_STORE, key, seconds, spooled, segment, end, _pack_report((_SUCCEEDED, *report))
    packed: bytes = _pack_report(what)
    return packed


def report_of(fields: Sequence[Any]) -> ReportMessage:
    """The report with these unpacked fields, its kind first."""
    kind = fields[0]
    if kind == _SUCCEEDED:
        _, key, seconds, outcome, spooled, usage = fields
        head = _new_key(key), seconds, new_outcome(outcome)
        return new_succeeded((*head, spooled, new_usage(usage)))
    if kind == _STARTED:
        _, key, item = fields
        return new_started((_new_key(key), item))
    if kind == _TO_STORE:
        _, key, seconds, spooled, segment, end, report = fields
        return _new_to_store((_new_key(key), seconds, spooled, segment, end, report))
    return _READERS[kind](*fields[1:])
