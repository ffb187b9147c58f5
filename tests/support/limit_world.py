"""Engines that share a limit by an object, on a clock that jumps: see `LimitWorld`.

Requests take time, are carried out late or twice, are refused or forgotten, and answers get lost.
Engines die, lose their network, and have clocks that differ and do not run at the same speed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Any

from asyncflow.store.object_store.limit_share import LimitShare, Look, Timing
from asyncflow.store.object_store.limit_state import LimitState, pack, unpack

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

GRACE = 20.0  # the most that a task goes on after it was told to stop


@dataclass
class World:
    """What may go wrong, as chances of each request."""

    late: float = 0.0
    """It is carried out after whoever has asked has given up."""
    twice: float = 0.0
    refused: float = 0.0
    lost: float = 0.0
    """It is carried out, and the answer does not come."""
    timeout: float = 3.0
    most_seconds: float = 0.1
    """How long a request takes at the most."""


@dataclass
class Engine:
    """One of the engines, with tasks that wait and tasks that run."""

    share: LimitShare
    bound: int
    offset: float
    speed: float
    waiting: int = 0
    task_seconds: float = 1.0
    is_dead: bool = False
    is_cut: bool = False
    is_leaving: bool = False
    is_asking: bool = False
    running: dict[int, int] = field(default_factory=dict)  # task: place
    started: list[float] = field(default_factory=list)
    rate: float = 0.0
    """Its tasks per second, for tasks that need no place; some always wait."""

    def clock(self, now: float) -> float:
        """The time that the engine sees."""
        return self.offset + now * self.speed


class LimitWorld:
    """A store with one object, and the engines; `run` lets time pass and checks the bound."""

    def __init__(self, random: Random, world: World) -> None:
        self.random, self.world = random, world
        self.now = 0.0
        self.data: bytes | None = None
        self.version = 0
        self.written_at = 0.0
        self.engines: list[Engine] = []
        self.most = 0
        self.requests = 0
        self._numbers = count()
        self._queue: list[tuple[float, int, Callable[[], object]]] = []
        self._tasks: dict[int, Engine] = {}

    def add(self, bound: int, timing: Timing | None = None, **options: Any) -> Engine:
        """Add an engine whose clock has nothing to do with that of others."""
        share = LimitShare(f"engine-{len(self.engines)}", "host", timing or Timing())
        offset = self.random.uniform(0, 1e6)
        speed = options.pop("speed", None) or self.random.uniform(0.95, 1.05)
        engine = Engine(share, bound, offset, speed, **options)
        self.engines.append(engine)
        self._after(0.0, lambda: self._work(engine))
        self._after(0.25, lambda: self._check(engine))
        return engine

    def run(self, seconds: float) -> None:
        """Let so many seconds pass."""
        until = self.now + seconds
        while self._queue and self._queue[0][0] <= until:
            self.now, _, call = heappop(self._queue)
            call()
        self.now = until

    def kill(self, engine: Engine) -> None:
        """The engine and its tasks are gone."""
        engine.is_dead = True
        for task in engine.running:
            self._tasks.pop(task, None)
        engine.running.clear()

    @property
    def state(self) -> LimitState:
        """What the object says."""
        return LimitState() if self.data is None else unpack(self.data, "api")

    def held(self, engine: Engine) -> int:
        """How many places the object gives to an engine."""
        entry = self.state.engines.get(engine.share.engine)
        return 0 if entry is None else len(entry.places)

    def running(self) -> int:
        """How many tasks run, of all engines."""
        return len(self._tasks)

    def _after(self, seconds: float, call: Callable[[], object]) -> None:
        heappush(self._queue, (self.now + seconds, next(self._numbers), call))

    # --- tasks ---

    def start_tasks(self, engine: Engine) -> None:
        """Start as many tasks as have a place."""
        if engine.is_dead:
            return
        share, now = engine.share, engine.clock(self.now)
        if engine.rate:
            self._start_at_rate(engine)
            return
        while engine.waiting:
            place = share.take(engine.bound, now, now)
            if place is None:
                break
            task = next(self._numbers)
            others = [each for each in self.engines if place in each.running.values()]
            assert not others, f"place {place} is in use twice at {self.now}"
            assert 0 <= place < engine.bound
            engine.running[task] = place
            self._tasks[task] = engine
            self.most = max(self.most, len(self._tasks))
            engine.waiting -= 1
            engine.started.append(self.now)
            seconds = engine.task_seconds * self.random.uniform(0.5, 1.5)
            self._after(seconds, partial(self._end, engine, task))
        share.expect(1, engine.bound, engine.waiting)

    def _start_at_rate(self, engine: Engine) -> None:
        now = engine.clock(self.now)
        while not engine.share.begin_one(engine.rate, 0.0, now, now):
            engine.started.append(self.now)

    def _end(self, engine: Engine, task: int) -> None:
        if task not in engine.running:
            return
        self._tasks.pop(task)
        returned = engine.share.give_back(engine.running.pop(task), engine.clock(self.now))
        self.start_tasks(engine)
        if returned:
            self._work(engine, once=True)

    def _check(self, engine: Engine) -> None:
        """What an engine does twice a second: stop its tasks if its entry no longer counts."""
        if engine.is_dead:
            return
        share = engine.share
        if engine.running and (share.is_lost or not share.is_alive(engine.clock(self.now))):
            if not share.is_lost:
                share.lose()
            for task in [*engine.running]:
                seconds = self.random.uniform(0, GRACE)
                self._after(seconds, partial(self._end, engine, task))
        self._after(0.5, lambda: self._check(engine))

    # --- requests ---

    def _work(self, engine: Engine, *, once: bool = False) -> None:
        """Make the next request, if one is due and none is under way."""
        if engine.is_dead:
            return
        if engine.is_asking:
            if not once:
                self._after(0.25, lambda: self._work(engine))
            return
        self.start_tasks(engine)
        clock = engine.clock(self.now)
        request = engine.share.next_request(clock, clock, leave=engine.is_leaving)
        if request is None:
            if not once:
                self._after(0.25, lambda: self._work(engine))
            return
        self.requests += 1
        engine.is_asking = True
        self._send(engine, request)
        if not once:
            self._after(0.25, lambda: self._work(engine))

    def _send(self, engine: Engine, request: Look | LimitState) -> None:
        world, chance = self.world, self.random.random
        data = b"" if isinstance(request, Look) else pack(request)
        known, sent = engine.share.version, engine.clock(self.now)
        carry_out = partial(self._carry_out, engine, request, data, known, sent)
        takes = self.random.uniform(0, world.most_seconds)
        give_up = partial(self._answer, engine, engine.share.on_unknown)
        if engine.is_cut or chance() < world.refused:
            self._after(world.timeout, give_up)
        elif chance() < world.lost:
            self._after(takes, carry_out)
            self._after(world.timeout, give_up)
        elif chance() < world.late:
            self._after(self.random.uniform(0, 200), carry_out)
            self._after(world.timeout, give_up)
        else:
            self._after(takes, partial(self._arrive, engine, carry_out))

    def _arrive(self, engine: Engine, carry_out: Callable[[], Callable[[], None]]) -> None:
        answer = carry_out()
        if self.random.random() < self.world.twice:
            self._after(self.random.uniform(0, 100), carry_out)
        takes = self.random.uniform(0, self.world.most_seconds)
        self._after(takes, partial(self._answer, engine, answer))

    def _carry_out(
        self,
        engine: Engine,
        request: Look | LimitState,
        data: bytes,
        known: str | None,
        sent: float,
    ) -> Callable[[], None]:
        """What the store does with a request; the result is what its answer brings about."""
        share = engine.share
        there = str(self.version) if self.data is not None else ""
        if isinstance(request, Look):
            state, at = self.state, self.written_at
            return lambda: share.on_seen(state, there, at, engine.clock(self.now))
        if known != there:
            return share.on_unknown
        self.data, self.version, self.written_at = data, self.version + 1, self.now
        written = str(self.version)
        return lambda: share.on_written(request, written, sent, engine.clock(self.now))

    def _answer(self, engine: Engine, answer: Callable[[], None]) -> None:
        engine.is_asking = False
        if not engine.is_dead:
            answer()
            self.start_tasks(engine)
