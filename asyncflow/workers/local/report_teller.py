"""Reports what workers have done, with their output in the right places."""

from __future__ import annotations

from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from asyncflow.workers.local.spool_reader import PIECE_BYTES
from asyncflow.workers.local.worker_process import Exited, Printed
from asyncflow.workers.messages import (
    AttemptKey,
    Failed,
    Garbled,
    GaveBack,
    Started,
    Succeeded,
    ToStore,
    Wrote,
)
from asyncflow.workers.report_stream import Reports, WholeAttempts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from asyncflow.workers.interface import WorkerListener
    from asyncflow.workers.local.worker_process import WorkerProcess
    from asyncflow.workers.messages import Logged, ReportMessage


_ENDS: Final = (Succeeded, ToStore, Failed)
_OVER: Final = (*_ENDS, GaveBack)


class ReportTeller:
    """Passes reports of a pool's workers on to the listener."""

    def __init__(
        self,
        listener: WorkerListener,
        *,
        on_begun: Callable[[], None],
        on_more: Callable[[WorkerProcess], None],
        on_exit: Callable[[WorkerProcess, str], None],
    ) -> None:
        """Report nothing yet.

        Args:
            listener: Gets the reports.
            on_begun: Called when a task has begun: from now on the pool looks for its output.
            on_more: Called when more of a worker is left to report, in a later turn of the loop.
            on_exit: Called when everything of a worker is reported, and how its process ended.
        """
        self._listener = listener
        self._on_begun, self._on_more, self._on_exit = on_begun, on_more, on_exit
        self._given_back: deque[tuple[WorkerProcess, list[GaveBack]]] = deque()  # and not reported
        self.telling: WorkerProcess | None = None
        """The worker whose reports are being received or told; see `broken_off`."""
        self.output_is_dropped = False
        """Whether to drop output, because the pool is closing."""

    def give_back(self, worker: WorkerProcess, attempts: Sequence[AttemptKey]) -> None:
        """Keep attempts that a worker will not begin, until `tell_given_back`."""
        self._given_back.append((worker, [GaveBack(attempt) for attempt in attempts]))

    @property
    def has_given_back(self) -> bool:
        """Whether `tell_given_back` has something to report."""
        return bool(self._given_back)

    def tell_given_back(self) -> None:
        """Report the attempts that workers will not begin."""
        while self._given_back:
            worker, reports = self._given_back.popleft()
            before, self.telling = self.telling, worker
            try:
                self._listener.on_reports(worker, reports)
            except BaseException as error:
                self.broken_off(error)
                raise
            self.telling = before

    def broken_off(self, error: BaseException | None = None) -> None:
        """Tell that reports may be lost, if some were being received or told.

        Called when an exception has broken that off, and when nothing is under way.
        """
        if self.telling is not None:
            by = "an exception" if error is None else f"{type(error).__name__}: {error}"
            self._listener.on_reports(self.telling, [Garbled(by)])
            self.telling = None  # last: else it is told again

    @contextmanager
    def receiving(self, worker: WorkerProcess) -> Iterator[None]:
        """Within the block, reports of a worker are received."""
        before, self.telling = self.telling, worker
        try:
            yield
        except BaseException as error:
            self.broken_off(error)
            raise
        self.telling = before

    def tell(self, worker: WorkerProcess) -> None:
        """Report what a worker has sent, with its output in the right places.

        If there is much output, one piece is reported, and the rest in later turns of the loop.
        """
        before, self.telling = self.telling, worker
        try:
            self._tell(worker)
        except BaseException as error:
            self.broken_off(error)
            raise
        self.telling = before

    def _tell(self, worker: WorkerProcess) -> None:
        told: list[ReportMessage | WholeAttempts] = []
        size, untold = 0, worker.untold
        exited: Exited | None = None
        while untold and size < PIECE_BYTES and not worker.paused:
            if self._take_silent(worker, told):
                continue
            report = untold[0]
            piece = self._printed_before(worker, report)
            if piece is not None:
                told.append(piece)
                size += len(piece.data)
                continue
            if isinstance(report, Exited):
                exited = report
                break
            untold.popleft()
            if not isinstance(report, Printed | WholeAttempts):
                self._note(worker, report)
                told.append(report)
        if told:
            self._listener.on_reports(worker, Reports(told))
        if worker.paused:
            return
        if exited is not None:
            self._on_exit(worker, exited.how)
        elif untold:
            self._on_more(worker)

    def _take_silent(
        self, worker: WorkerProcess, told: list[ReportMessage | WholeAttempts]
    ) -> bool:
        """Move the usual reports that are next to `told`, if nothing was printed before them.

        Returns whether there were any.
        """
        untold, tasks, output = worker.untold, worker.tasks, worker.output
        before, have_begun = len(told), False
        while untold:
            report = untold[0]
            if type(report) is WholeAttempts:
                if output.has_unread(report.spooled):
                    untold.popleft()
                    untold.extendleft(reversed(report.reports()))
                    continue
                for key in report.keys:
                    tasks.pop(key, None)
                have_begun = True
                worker.ended += len(report.ended)
                worker.ended_seconds += sum(report.seconds)
            elif type(report) is Started:
                tasks[report.key] = have_begun = True
            elif (type(report) is Succeeded or type(report) is ToStore) and not output.has_unread(
                report.spooled
            ):
                tasks.pop(report.key, None)
                worker.ended += 1
                worker.ended_seconds += report.seconds
            elif type(report) is not Wrote:
                break
            untold.popleft()
            told.append(report)
        if have_begun:
            self._on_begun()
        return len(told) > before

    def _printed_before(
        self, worker: WorkerProcess, report: ReportMessage | WholeAttempts | Printed | Exited
    ) -> Logged | None:
        """What was printed, and is to be told before the report."""
        if isinstance(report, _ENDS):
            if not worker.output.has_unread(report.spooled):
                return None
            ending = report.key
            printing = worker.running or ending
            printed = Printed(printing, report.spooled, is_end=printing == ending)
        elif isinstance(report, Printed):
            printed = report
        elif isinstance(report, Exited) and worker.running is not None:
            printed = Printed(worker.running, report.printed, is_end=True)
        else:
            return None
        if self.output_is_dropped:
            return None
        return worker.output.next_piece(printed.attempt, printed.upto, is_end=printed.is_end)

    def _note(self, worker: WorkerProcess, report: ReportMessage) -> None:
        if isinstance(report, _OVER):
            worker.tasks.pop(report.key, None)
            if not isinstance(report, GaveBack):
                worker.ended += 1
                worker.ended_seconds += report.seconds
