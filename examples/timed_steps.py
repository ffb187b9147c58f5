"""Every step is timed by a decorator of the project's own, which a mutator puts on all of them.

asyncflow run examples/timed_steps.py
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from asyncflow import FlowMutator, FlowSpec, retry, step, user_step_decorator

if TYPE_CHECKING:
    from collections.abc import Generator

    from asyncflow.flow.mutators import MutableFlow


@user_step_decorator
def timed(
    step_name: str, flow: Any, inputs: object, attributes: dict[str, float]
) -> Generator[None, None, None]:
    """Keep how long the step takes, and print it."""
    kind = "join" if inputs is not None else "step"
    began = time.perf_counter()
    yield
    flow.seconds = time.perf_counter() - began
    print(f"{kind} {step_name}: {flow.seconds:.3f} s of {attributes['limit']} s")


class Timed(FlowMutator):
    """Puts `@timed` on every step that has none."""

    def mutate(self, mutable_flow: MutableFlow) -> None:
        """Leave a decorator that is there as it is."""
        for _, mutable_step in mutable_flow.steps:
            mutable_step.add_decorator(timed, deco_kwargs={"limit": 60})


@Timed
class TimedSteps(FlowSpec):
    """Adds up numbers, in two steps."""

    @step
    def start(self) -> None:
        """Make the numbers."""
        self.numbers = list(range(100_000))
        self.next(self.end)

    @timed(limit=5)
    @retry(times=1)
    @step
    async def end(self) -> None:
        """Add them up."""
        print("The sum is", sum(self.numbers))


if __name__ == "__main__":
    TimedSteps()
