"""One flow for each part of the language; `test_conformance` runs them with each kind of step.

Their steps stand here as `def`. Nothing that they keep or print depends on time, order or process.
"""

from __future__ import annotations

import asyncio  # noqa: F401 - for the async variants that are made of this file

from asyncflow import FlowSpec, Parameter, catch, current, parallel, retry, shared, step


class Linear(FlowSpec):
    """Three steps in a row."""

    alpha = Parameter("alpha", default=3)
    constant = (1, 2)

    @step
    def start(self):
        self.numbers = [self.alpha, *self.constant]
        self.kept = {"kept": 1}
        self.next(self.middle)

    @step
    def middle(self):
        self.numbers.append(current.parameters.alpha)  # in place
        del self.kept
        print("in", current.step_name)
        self.next(self.end)

    @step
    def end(self):
        self.total = sum(self.numbers)
        self.has_kept = hasattr(self, "kept")


class Branch(FlowSpec):
    """A split, its join by name, index and turn."""

    @step
    def start(self):
        self.common = "common"
        self.next(self.left, self.right)

    @step
    def left(self):
        self.value = [1, self.common]
        self.next(self.left_too)

    @step
    def left_too(self):
        self.value = [*self.value, "too"]
        self.next(self.join)

    @step
    def right(self):
        self.value = [2]
        self.next(self.join)

    @step
    def join(self, inputs):
        self.by_name = inputs.left_too.value, inputs.right.value
        self.by_turn = [branch.value for branch in inputs]
        self.count = len(inputs)
        self.next(self.end)

    @step
    def end(self):
        print(self.by_name, self.count)


class Foreach(FlowSpec):
    """A foreach over a generator, with two steps in it."""

    @step
    def start(self):
        self.items = (number * "x" for number in range(30))
        self.next(self.work, foreach="items")

    @step
    def work(self):
        self.got = [self.input, self.index]
        print("item", self.index)
        self.next(self.more)

    @step
    def more(self):
        self.got = [*self.got, self.foreach_stack()[-1][:2]]
        self.next(self.join)

    @step
    def join(self, inputs):
        self.all_got = [each.got for each in inputs]
        self.inputs_indexed = [(each.index, each.input) for each in inputs]
        self.next(self.end)

    @step
    def end(self):
        self.outside = self.index, self.input


class Nested(FlowSpec):
    """A foreach in a foreach with a branch inside; some of the inner ones are empty."""

    @step
    def start(self):
        self.rows = [[1, 2, 3], [], [4]]
        self.next(self.row, foreach="rows")

    @step
    def row(self):
        self.cells = list(self.input)
        self.next(self.cell, foreach="cells")

    @step
    def cell(self):
        self.stack = self.foreach_stack()
        self.next(self.double, self.square)

    @step
    def double(self):
        self.result = self.input * 2
        self.next(self.meet)

    @step
    def square(self):
        self.result = self.input**2
        self.next(self.meet)

    @step
    def meet(self, inputs):
        self.pair = inputs.double.result, inputs.square.result
        self.merge_artifacts(inputs, include=["stack"])
        self.next(self.inner)

    @step
    def inner(self, inputs):
        self.pairs = [each.pair for each in inputs]
        self.stacks = [each.stack for each in inputs]
        self.next(self.outer)

    @step
    def outer(self, inputs):
        self.table = [each.pairs for each in inputs]
        self.next(self.end)

    @step
    def end(self):
        pass


class Merging(FlowSpec):
    """What branches agree on passes on by itself."""

    @step
    def start(self):
        self.untouched = list(range(50))
        self.equal = "before"
        self.next(self.left, self.right)

    @step
    def left(self):
        self.equal = "after"
        self.differs = "left"
        self.only_left = 1
        self.next(self.join)

    @step
    def right(self):
        self.equal = "after"
        self.differs = "right"
        self.next(self.join)

    @step
    def join(self, inputs):
        self.differs = "+".join(each.differs for each in inputs)
        self.merge_artifacts(inputs)
        self.next(self.end)

    @step
    def end(self):
        self.all = self.untouched[-1], self.equal, self.differs, self.only_left


class Disagreeing(Merging):
    """The same, with a join that does not say what to do about what differs."""

    @step
    def join(self, inputs):
        self.merge_artifacts(inputs)
        self.next(self.end)


class Retried(FlowSpec):
    """Fails twice in each of its tasks."""

    @step
    def start(self):
        self.items = [5, 6, 7]
        self.next(self.flaky, foreach="items")

    @retry(times=2, seconds=0)
    @step
    def flaky(self):
        self.lost = "of a failed attempt" if current.attempt < 2 else None
        print("attempt", current.attempt)
        if current.attempt < 2:
            raise ConnectionError(self.input)
        self.attempt = current.attempt, current.retry_count
        self.next(self.join)

    @step
    def join(self, inputs):
        self.attempts = [each.attempt for each in inputs]
        self.next(self.end)

    @step
    def end(self):
        pass


class Caught(FlowSpec):
    """Some of its tasks fail, and the flow goes on without them."""

    @step
    def start(self):
        self.items = [1, 0, 2, 0]
        self.kept = "kept"
        self.next(self.divide, foreach="items")

    @catch(var="failure")
    @step
    def divide(self):
        self.before = "set before"
        self.result = 10 / self.input
        self.next(self.join)

    @step
    def join(self, inputs):
        self.results = [getattr(each, "result", None) for each in inputs]
        self.set_before = [hasattr(each, "before") for each in inputs]
        self.failures = [each.failure and each.failure.type for each in inputs]
        self.merge_artifacts(inputs, include=["kept"])
        self.next(self.end)

    @step
    def end(self):
        pass


class Failing(FlowSpec):
    """Its second step raises."""

    @step
    def start(self):
        self.items = [1]
        self.next(self.bad, foreach="items")

    @step
    def bad(self):
        print("about to")
        if self.input:
            raise LookupError("no luck")
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass


class Empty(FlowSpec):
    """A foreach over nothing: its join has no inputs."""

    @step
    def start(self):
        self.items = ()
        self.next(self.work, foreach="items")

    @step
    def work(self):
        self.next(self.join)

    @step
    def join(self, inputs):
        self.count = len(inputs), list(inputs)
        self.next(self.end)

    @step
    def end(self):
        pass


class Sharing(FlowSpec):
    """All of its tasks have a part in the same thing."""

    @shared
    def table():
        yield {number: number**2 for number in range(10)}

    @shared
    def looked_up(*, table):
        yield table.get

    @step
    def start(self, *, table):
        self.items = list(table)
        self.next(self.work, foreach="items")

    @step
    def work(self, *, looked_up):
        self.squared = looked_up(self.input)
        self.next(self.join)

    @step
    def join(self, inputs, *, table):
        self.right = [each.squared for each in inputs] == list(table.values())
        self.next(self.end)

    @step
    def end(self):
        pass


class Choosing(FlowSpec):
    """Conditions: nested, within a foreach and a branch, with branches in them."""

    @step
    def start(self):
        self.items = ["small", "large", "odd", "large"]
        self.next(self.sort, foreach="items")

    @step
    def sort(self):
        self.kind = self.input
        self.next({"small": self.small, "large": self.large, "odd": self.join}, condition="kind")

    @step
    def small(self):
        self.way = ["small"]
        self.next(self.met)

    @step
    def large(self):
        self.deep = (self.index or 0) > 1
        self.next({True: self.split, False: self.plain}, condition="deep")

    @step
    def split(self):
        self.next(self.left, self.right)

    @step
    def left(self):
        self.way = ["left"]
        self.next(self.both)

    @step
    def right(self):
        self.way = ["right"]
        self.next(self.both)

    @step
    def both(self, inputs):
        self.way = [*inputs.left.way, *inputs.right.way]
        self.next(self.met)

    @step
    def plain(self):
        self.way = ["plain"]
        self.next(self.met)

    @step
    def met(self):
        self.way.append(current.step_name)
        self.next(self.join)

    @step
    def join(self, inputs):
        self.ways = [getattr(each, "way", None) for each in inputs]
        self.next(self.end)

    @step
    def end(self):
        print(self.ways)


class Looping(FlowSpec):
    """Steps that a condition repeats, and a loop around a foreach with loops in it."""

    @step
    def start(self):
        self.rounds, self.seen = 0, []
        self.next(self.count)

    @step
    def count(self):
        self.rounds += 1
        self.again = self.rounds % 3 != 0
        self.next({True: self.count, False: self.spread}, condition="again")

    @step
    def spread(self):
        self.items = range(self.rounds // 3)
        self.next(self.climb, foreach="items")

    @step
    def climb(self):
        self.height = getattr(self, "height", 0) + 1
        self.next(self.look)

    @step
    def look(self):
        self.is_up = self.height > self.input
        self.next({True: self.top, False: self.climb}, condition="is_up")

    @step
    def top(self):
        self.next(self.join)

    @step
    def join(self, inputs):
        self.merge_artifacts(inputs, include=["rounds", "seen"])
        self.seen.append([(each.index, each.height) for each in inputs])
        self.more = self.rounds < 9
        self.next({True: self.count, False: self.end}, condition="more")

    @step
    def end(self):
        print(self.rounds, self.seen)


class Gangs(FlowSpec):
    """Gangs within a foreach, one of whose nodes fails at first."""

    @step
    def start(self):
        self.sizes = [1, 3]
        self.next(self.size, foreach="sizes")

    @step
    def size(self):
        self.count = self.input
        self.next(self.node, num_parallel=self.count)

    @retry(times=1, seconds=0)
    @parallel
    @step
    def node(self):
        if current.parallel.node_index == 2 and current.attempt == 0:
            raise ConnectionError("the last")
        if current.attempt or self.count == 1:  # else it may be stopped before
            print("node", current.parallel.node_index)
        self.place = current.parallel.num_nodes, self.index, self.input, current.attempt
        self.is_control = current.task_id == current.parallel.control_task_id
        self.stack = self.foreach_stack()
        self.next(self.met)

    @step
    def met(self, inputs):
        self.places = [(each.place, each.is_control, each.stack) for each in inputs]
        self.merge_artifacts(inputs, include=["count"])
        self.next(self.join)

    @step
    def join(self, inputs):
        self.all_places = [each.places for each in inputs]
        self.next(self.end)

    @step
    def end(self):
        pass
