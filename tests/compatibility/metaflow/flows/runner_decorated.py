"""A program puts decorators on the steps of a flow, waits for its run, and stops another one."""

import asyncio
import os
import time

from metaflow import FlowSpec, Parameter, Runner, current, step


class RunnerDecoratedFlow(FlowSpec):
    seconds = Parameter("seconds", default=0)

    @step
    def start(self):
        if self.seconds:
            print("waiting", flush=True)
            time.sleep(self.seconds)
        self.word = os.environ.get("WORD")
        if current.retry_count == 0 and self.word:
            raise ValueError("once more")
        self.next(self.end)

    @step
    def end(self):
        pass


def look(run):
    return asyncio.run(_look())


async def _look():
    given = 'environment:vars={"WORD": "said"}'
    with Runner(
        __file__,
        show_output=False,
        env=dict(os.environ),
        decospecs=["retry:times=1,minutes_between_retries=0"],
    ) as runner:
        executing = await runner.async_run(decospecs=[given])
        await executing.command_obj.wait()
        told = {
            "decorated": (executing.status, executing.run["start"].task.data.word),
            "attempt": executing.run["start"].task.current_attempt,
        }
        lines = []
        await executing.command_obj.emit_logs("stdout", lines.append)
        told["log"] = any("once more" in line for line in lines)
        plain = await runner.async_run()
        told["plain"] = (await plain.wait()).run["start"].task.data.word
        waiting = await runner.async_run(seconds=60)
        async for _, line in waiting.stream_log("stdout"):
            if line.endswith("waiting"):
                break
        before = time.monotonic()
        waiting.command_obj.kill()
        await waiting.wait()
        told["killed"] = (waiting.status, time.monotonic() - before < 30)
    return told


if __name__ == "__main__":
    RunnerDecoratedFlow()
