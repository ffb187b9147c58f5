"""The facts that a run was told, and that its journal does not have yet.

Facts that come in while a batch is being written make the next batch. The inbox judges failures:
what follows from one depends on the plan, which has to know all earlier facts. So a batch ends with
the failure that ends the run. The ends of a gang's nodes wait in their gang, which comes in as a
whole.

That a task has begun waits for a moment if nothing else is to be written, and if tasks of its step
are short: its end then goes into the same batch. Else a chain of short steps would write twice for
each, and each end would wait for the write before it. The record of such a beginning has the time
at which it came in, not that of the write: else a short task would seem to take no time at all.

Nothing here waits.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

from asyncflow.scheduling.commands import Verdict
from asyncflow.scheduling.facts import Lost, Ran
from asyncflow.scheduling.facts_to_events import OUTPUT_BYTES
from asyncflow.scheduling.gangs import Gang
from asyncflow.workers.messages import Failed, Logged, Started, Succeeded

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Collection, Sequence

    from asyncflow.scheduling.facts import Fact
    from asyncflow.scheduling.facts_to_events import Batch, Recorder
    from asyncflow.scheduling.gangs import End, Gangs
    from asyncflow.scheduling.plan import Plan

_BATCH_FACTS: Final = 256  # a batch of them takes the event loop some 2 ms
_LEAST_FACTS: Final = 64  # in a batch, however little time is left: each batch costs a write
_FACTS_AT_ONCE: Final = 16  # before the clock is looked at
_SHORT_SECONDS: Final = 0.005  # the usual length of a task whose beginning may wait for its end
_STORE_SECONDS: Final = 0.001  # what a worker does for it besides, at most as a rule
_ENDS: Final = (Succeeded, Failed, Lost)
_PLAIN: Final = frozenset((Started, Succeeded))
_USUAL: Final = _PLAIN | {Ran}
_FAILURES: Final = (Failed, Lost)  # a union in `isinstance` takes three times as long


class FactInbox:
    """The facts of one run until a batch has them."""

    def __init__(
        self,
        plan: Plan,
        recorder: Recorder,
        gangs: Gangs,
        *,
        loop: asyncio.AbstractEventLoop,
        now: Callable[[], int],
        on_added: Callable[[], None],
        on_run_failing: Callable[[], None],
        stop_tasks: Callable[[Collection[int], str], None],
    ) -> None:
        """Have no facts yet.

        Args:
            plan: Knows what follows from a failure.
            recorder: Makes records of facts.
            gangs: The gangs that workers have.
            loop: The engine's event loop.
            now: Tells the time for a record, in microseconds since 1970.
            on_added: Called when there is something for the next batch.
            on_run_failing: Called when a failure that is not in the journal yet will end the run.
            stop_tasks: Stops the nodes with these ids, for this reason.
        """
        self._plan, self._recorder, self._gangs = plan, recorder, gangs
        self._loop, self._now = loop, now
        self._on_added, self._on_run_failing = on_added, on_run_failing
        self._stop_tasks = stop_tasks
        self.facts: deque[Fact | Ran | Gang] = deque()
        """The facts that no batch has yet."""
        self._in_ran = 0  # how many more facts there were if those about each task came alone
        self.output_bytes = 0
        """How much output there is among the facts."""
        self._due = 0.0
        """When the facts are to be written, by the loop's clock."""
        self._held, self._held_since = 0, 0
        """How many of the facts, the first ones, have waited for their ends, and since when."""

    def __len__(self) -> int:
        """How many facts there are; tasks that ran count as two each."""
        return len(self.facts) + self._in_ran

    @property
    def is_due(self) -> bool:
        """Whether there are facts that are to be written now."""
        return bool(self.facts) and self._loop.time() >= self._due

    @property
    def has_failures(self) -> bool:
        """Whether a failure, or a gang, is among the facts."""
        return any(isinstance(each, (*_FAILURES, Gang)) for each in self.facts)

    # --- what comes in ---

    def add(self, *facts: Fact | Ran) -> None:
        """Add facts; the end of a gang's node is kept until its gang has ended."""
        if not (self._recorder.streams or self._gangs) and _USUAL.issuperset(map(type, facts)):
            if type(facts[0]) is Started and not self.facts and self._may_wait(facts):
                self.facts.extend(facts)
                self._held, self._held_since = len(facts), self._now()
                self._loop.call_at(self._due, self._end_wait, self._due)
                return
            self._due = 0.0
            self.facts.extend(facts)
            self._in_ran += sum(
                [2 * len(each.attempts.begun) - 1 for each in facts if type(each) is Ran]
            )
            self._on_added()
            return
        for fact in facts:
            if isinstance(fact, Ran):
                self._recorder.on_started(fact.tasks, fact.pid, fact.node)
                for report in fact.attempts.reports():
                    self._add(report)
            else:
                self._add(fact)

    def _may_wait(self, facts: Sequence[Fact | Ran]) -> bool:
        """Whether these only say that short tasks have begun; sets how long they wait."""
        seconds = 0.0
        for fact in facts:
            if type(fact) is not Started:
                return False
            seconds = max(seconds, self._recorder.expected_seconds(fact.key.task))
            if seconds > _SHORT_SECONDS:
                return False
        self._due = self._loop.time() + _STORE_SECONDS + 2 * seconds
        return True

    def _end_wait(self, due: float) -> None:
        """Have written what waits until then, if it still does.

        The clock is not asked again: that of uvloop may still be behind its timer.
        """
        if self._due == due:
            self._due = 0.0
            self._on_added()

    def _add(self, fact: Fact) -> None:
        self._due = 0.0
        if self._recorder.streams:
            fact = self._recorder.streams.heard(fact)
        if self._gangs and isinstance(fact, _ENDS):
            gang = self._gangs.of(fact.key)
            if gang is not None:
                self._on_node_ended(gang, fact)
                return
        self.facts.append(fact)
        self._on_added()
        if isinstance(fact, Logged):
            self.output_bytes += len(fact.data)
        elif isinstance(fact, _FAILURES) and self._ends_run(self.verdict(fact)):
            self._on_run_failing()

    def give_up_stand_ins(self) -> None:
        """The run is ending: gangs that wait for stand-ins have failed."""
        for gang in self._gangs.give_up():
            self._add_gang(gang)

    def _on_node_ended(self, gang: Gang, end: End) -> None:
        """A node of a gang has ended: if it is the first that has failed, stop the others."""
        caused = gang.cause is None
        gang.add(end)
        if gang.cause is not None and caused and gang.running:
            self._stop_tasks(gang.running, gang.why_stopped)
        if gang.has_ended:
            self._add_gang(gang)

    def _add_gang(self, gang: Gang) -> None:
        self._due = 0.0
        self.facts.append(gang)
        self._on_added()
        if gang.cause is not None and self._ends_run(self.verdict(gang.cause)):
            self._on_run_failing()

    # --- what follows from a failure ---

    def verdict(self, failure: Failed | Lost) -> Verdict:
        """What follows from the failure of an attempt."""
        if isinstance(failure, Failed) and failure.outcome is not None:
            return Verdict.CATCH
        return self._plan.verdict(failure.key.task, may_retry=failure.may_retry)

    def _ends_run(self, verdict: Verdict) -> bool:
        return verdict is Verdict.FAIL and not self._plan.stopping

    def _verdict_on(self, gang: Gang) -> Verdict:
        if gang.cause is None or self._plan.stopping:
            return Verdict.FAIL
        return self.verdict(gang.cause)

    # --- what goes out ---

    def collect(self, batch: Batch, has_time: Callable[[], bool]) -> None:
        """Move facts to a batch, as long as there is time."""
        number, facts, self._due = self._held, self.facts, 0.0
        if number:
            self._recorder.record_plain(self._take_plain(number), batch, self._held_since)
            self._held = 0
        while facts and number < _BATCH_FACTS and (number < _LEAST_FACTS or has_time()):
            if plain := self._take_plain(_FACTS_AT_ONCE):
                self._recorder.record_plain(plain, batch)
                number += len(plain)
                continue
            fact = facts.popleft()
            if isinstance(fact, Ran):
                number += self._collect_ran(fact, batch)
                continue
            number += 1
            if isinstance(fact, Gang):
                self._collect_gang(fact, batch)
                break
            verdict = None
            if isinstance(fact, Logged):
                self.output_bytes -= len(fact.data)
            elif isinstance(fact, _FAILURES):
                verdict = self.verdict(fact)
            self._recorder.record(fact, batch, verdict=verdict)
            if batch.output_bytes > OUTPUT_BYTES:
                break
            if verdict is not None and self._ends_run(verdict):
                break  # the plan must know that the run is ending before it judges the next failure
        self._recorder.settle(batch)

    def _collect_ran(self, ran: Ran, batch: Batch) -> int:
        """Move what was reported of tasks to a batch; return how many reports that are."""
        self._recorder.record_ran(ran, batch)
        count = 2 * len(ran.attempts.begun)
        self._in_ran -= count - 1
        return count

    def _take_plain(self, most: int) -> list[Started | Succeeded]:
        """Take facts away, as long as each says that an attempt has begun, or ended well."""
        facts = self.facts
        taken: list[Any] = []
        while facts and len(taken) < most:
            fact = facts.popleft()
            if type(fact) not in _PLAIN:
                facts.appendleft(fact)
                break
            taken.append(fact)
        return taken

    def _collect_gang(self, gang: Gang, batch: Batch) -> None:
        """Move the ends of a gang to a batch: one write has all of them, or none is published."""
        for end, verdict in gang.settle(self._verdict_on(gang)):
            self._recorder.record(end, batch, verdict=verdict)
        if gang.has_ended:
            self._gangs.end(gang)

    def __repr__(self) -> str:
        return f"<FactInbox of {len(self)} facts, {self.output_bytes} bytes of output>"
