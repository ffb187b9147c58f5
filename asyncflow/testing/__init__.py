"""For tests: a clock that skips waits, threads that run inline, simulated and remote workers.

They take the place of the real parts under the engine's real driver and dispatcher. What would take
hours and many processes then takes milliseconds and one thread, and is the same each time:

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

from asyncflow.testing.fake_clock import FakeClockLoop, StuckError
from asyncflow.testing.inline_executor import InlineExecutor
from asyncflow.testing.loopback import Loopback
from asyncflow.testing.simulated_workers import Act, SimulatedExecutor, SimulatedWorker

__all__ = [
    "Act",
    "FakeClockLoop",
    "InlineExecutor",
    "Loopback",
    "SimulatedExecutor",
    "SimulatedWorker",
    "StuckError",
]
