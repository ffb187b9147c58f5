"""What each word of the language costs: a flow with it, beside the same flow without it.

Each flow has as many tasks as the one beside it. Both run in turn on one warm engine, and the ratio
of the medians of their rates is what counts: 0.9 means that a task takes a ninth longer.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import anyio

from asyncflow import Engine
from asyncflow.flow.loader import load_file
from benchmarks.throughput import WORKERS, flow_rate

if TYPE_CHECKING:
    from asyncflow import FlowSpec

MODULE = """
from asyncflow import (
    Config, FlowSpec, Parameter, StepMutator, catch, config_expr, environment, parallel, project,
    resources, retry, step, timeout, user_step_decorator,
)


@user_step_decorator
def own(step_name, flow, inputs=None, attributes=None):
    yield


class mutated(StepMutator):
    def mutate(self, mutable_step):
        mutable_step.add_decorator(own)


{flow_decorator}
class {name}(FlowSpec):
    {attribute}
    width = Parameter("width", default=1000)

    @step
    def start(self):
        self.numbers = {items}
        self.next(self.work, foreach="numbers")

    {decorator}
    @step
    def work(self):
{work}
{more}
    @step
    {join}
        self.count = len(inputs)
        self.next(self.end)

    @step
    def end(self):
        pass
"""

JOIN = "def join(self, inputs):"
ASYNC_JOIN = "async def join(self, inputs):"
EARLY_JOIN = f"""{ASYNC_JOIN}
        async for _ in inputs:
            pass"""

SECOND = """
    @step
    def second(self):
        self.next(self.join)
"""
THIRD = SECOND.replace("second", "third")
SIZE = 2  # of a gang, and of the foreach beside it
MEET = """
    {decorator}
    @step
    def node(self):
        self.next(self.meet)

    @step
    def meet(self, inputs):
        self.next(self.join)
"""


class Text(NamedTuple):
    """What differs between the flows."""

    work: tuple[str, ...] = ("self.next(self.join)",)
    """The lines of the step that is measured."""
    decorator: str = ""
    """Of that step."""
    more: str = ""
    """Further steps."""
    items: str = "range(self.width)"
    join: str = JOIN
    attribute: str = ""
    """A line of the class."""
    flow_decorator: str = ""


PLAIN = Text()
TWO_STEPS = Text(("self.chosen = self.input % 2", "self.next(self.second)"), more=SECOND)
TURNS = ("self.done = getattr(self, 'done', 0) + 1", "self.again = self.done < 2")
TWICE = Text(
    (*TURNS, "self.next(self.other)"),
    more=SECOND.replace("second", "other").replace("self.next", "self.done += 1; self.next"),
)
NESTED = Text(
    (f"self.pair = [None] * {SIZE}", "self.next(self.node, foreach='pair')"),
    more=MEET.format(decorator=""),
)

PAIRS: dict[str, tuple[Text, Text]] = {
    "condition": (
        TWO_STEPS._replace(
            work=(
                "self.chosen = self.input % 2",
                "self.next({0: self.second, 1: self.third}, condition='chosen')",
            ),
            more=SECOND + THIRD,
        ),
        TWO_STEPS,
    ),
    "loop": (
        Text((*TURNS, "self.next({True: self.work, False: self.join}, condition='again')")),
        TWICE,
    ),
    "stream": (Text(items="(number for number in range(self.width))"), PLAIN),
    "early join": (Text(join=EARLY_JOIN), Text(join=ASYNC_JOIN)),
    "gang": (
        NESTED._replace(
            work=(f"self.pair = [None] * {SIZE}", f"self.next(self.node, num_parallel={SIZE})"),
            more=MEET.format(decorator="@parallel"),
        ),
        NESTED,
    ),
    "Config": (Text(attribute='settings = Config("settings", default_value={"a": 1})'), PLAIN),
    "config_expr": (
        Text(
            attribute='settings = Config("settings", default_value={"a": 1})',
            decorator='@retry(times=config_expr("settings.a"), seconds=0)',
        ),
        PLAIN._replace(decorator="@retry(times=1, seconds=0)"),
    ),
    "own decorator": (Text(decorator="@own"), PLAIN),
    "step mutator": (Text(decorator="@mutated"), PLAIN._replace(decorator="@own")),
    "@project": (Text(flow_decorator='@project(name="benchmark")'), PLAIN),
    "@environment": (Text(decorator='@environment(vars={"BENCHMARK": "1"})'), PLAIN),
    "@resources": (Text(decorator="@resources(cpu=1)"), PLAIN),
    "@retry": (Text(decorator="@retry(times=1, seconds=0)"), PLAIN),
    "@catch": (Text(decorator="@catch(var='failure')"), PLAIN),
    "@timeout": (Text(decorator="@timeout(seconds=60)"), PLAIN),
}
"""For each word, a flow with it and one without."""


class Flows:
    """The flows of these texts, each in a module of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: dict[Text, type[FlowSpec]] = {}

    def of(self, text: Text) -> type[FlowSpec]:
        """The flow of a text; one text makes one flow."""
        if text not in self._made:
            name = f"Language{len(self._made)}"
            lines = "\n".join(f"        {line}" for line in text.work)
            source = MODULE.format(name=name, **{**text._asdict(), "work": lines})
            file = self._folder / f"benchmark_{name.lower()}.py"
            file.write_text(source)
            self._made[text] = getattr(load_file(file), name)
        return self._made[text]


async def compare(width: int, rounds: int) -> None:
    """Print the rates of each pair, and their ratio."""
    print(f"a foreach over {width} items, {WORKERS} workers, median of {rounds} rounds: items/s")
    with tempfile.TemporaryDirectory() as folder:
        flows = Flows(Path(folder))
        async with Engine(store=Path(folder) / "store", workers=WORKERS) as engine:
            for name, pair in PAIRS.items():
                rates: tuple[list[float], list[float]] = [], []
                for text in pair:
                    await flow_rate(engine, flows.of(text), 200)
                for _ in range(rounds):
                    for text, found in zip(pair, rates, strict=True):
                        found.append(await flow_rate(engine, flows.of(text), width))
                fast, base = (statistics.median(each) for each in rates)
                print(f"  {name:14s} {fast:8.0f}  without {base:8.0f}  ratio {fast / base:.2f}")


def main(width: int = 2_000, rounds: int = 5) -> None:
    """Run the comparison."""
    anyio.run(compare, width, rounds)


if __name__ == "__main__":
    main()
