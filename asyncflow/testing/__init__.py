"""For tests: steps and flows in the test's own process, and fakes for the parts of an engine.

`run_step` runs one step on artifacts that the test gives, and `run_flow` a whole flow without a
worker:

    made = run_step(Prices, "load", input={"price": 10})
    assert made.share == 10.0

    run = run_flow(Prices, limit=5)
    assert run.data.shares == [10.0]

With pytest they are fixtures of the same names; `store`, `clock` and `crash_after` are others.

The fakes take the place of the real parts under the engine's real driver and dispatcher. What would
take hours and many processes then takes milliseconds and one thread, and is the same each time:

    loop = FakeClockLoop()
    loop.run_until_complete(asyncio.sleep(3600))  # at once; loop.time() says 3600.0

`FakeClockLoop` alone is of use for any code that waits. A `Dispatcher` takes `InlineExecutor` in
place of its threads, and `SimulatedExecutor` in place of its pool of workers. A store needs no
fake: use a real one in a temporary folder; a run in it costs some milliseconds.

`Loopback` is not a fake. It runs the real workers behind a socket, as an executor on another host
would, for tests of what must hold wherever tasks run:

    async with Engine(executor=Loopback(workers=2)) as engine:
        await engine.run(Flow)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from asyncflow.testing.fake_clock import FakeClockLoop, StuckError
    from asyncflow.testing.inline_executor import InlineExecutor
    from asyncflow.testing.loopback import Loopback
    from asyncflow.testing.one_step import StepResult, run_step
    from asyncflow.testing.retry_clock import RetryClock
    from asyncflow.testing.simulated_workers import Act, SimulatedExecutor, SimulatedWorker
    from asyncflow.testing.whole_flow import run_flow

__all__ = [
    "Act",
    "FakeClockLoop",
    "InlineExecutor",
    "Loopback",
    "RetryClock",
    "SimulatedExecutor",
    "SimulatedWorker",
    "StepResult",
    "StuckError",
    "run_flow",
    "run_step",
]

# Each is imported when it is first used: pytest imports this package at its start, for the plugin.
_LATER: Final = {
    "Act": "simulated_workers",
    "FakeClockLoop": "fake_clock",
    "InlineExecutor": "inline_executor",
    "Loopback": "loopback",
    "RetryClock": "retry_clock",
    "SimulatedExecutor": "simulated_workers",
    "SimulatedWorker": "simulated_workers",
    "StepResult": "one_step",
    "StuckError": "fake_clock",
    "run_flow": "whole_flow",
    "run_step": "one_step",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    import importlib

    value = getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
    globals()[name] = value
    return value
