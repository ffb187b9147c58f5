"""Many processes that start runs in one store at the very same time."""

from __future__ import annotations

import subprocess
import sys
import textwrap

from asyncflow import Flow

PROGRAM = """
    import asyncio, sys, time
    from asyncflow import Engine, FlowSpec, step
    from asyncflow.store import layout

    class Together(FlowSpec):
        @step
        def start(self):
            self.who = WHO
            self.next(self.end)

        @step
        def end(self):
            pass

    WHO = int(sys.argv[1]) if sys.argv[1:] else 0

    async def main():
        async with Engine(workers=1) as engine:
            print("ready", flush=True)
            sys.stdin.readline()
            runs = await asyncio.gather(*(engine.run(Together) for _ in range(5)))
            print(*(run.id for run in runs))

    if __name__ == "__main__":
        if sys.argv[2] == "frozen":
            time.time_ns = lambda: 1_795_472_682_985_927_000
        asyncio.run(main())
"""


def test_processes_that_start_runs_in_the_same_microsecond_do_not_collide(tmp_path, store):
    """In a store that is not there yet, with their clocks stopped: twenty runs, each its own."""
    (tmp_path / "together.py").write_text(textwrap.dedent(PROGRAM))
    processes = [
        subprocess.Popen(
            [sys.executable, "together.py", str(number), "frozen"],
            cwd=tmp_path,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    made = {}
    for number, process in enumerate(processes):
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        made.update(dict.fromkeys(out.split(), number))
    assert len(made) == 20
    runs = list(Flow("Together"))
    assert {run.id: run.data.who for run in runs} == made
    assert all(run.successful for run in runs)
