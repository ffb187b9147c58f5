"""A program that follows what it runs."""

import asyncio
import os

from metaflow import FlowSpec, Parameter, Runner, step


class RunnerAsyncFlow(FlowSpec):
    number = Parameter("number", default=1)

    @step
    def start(self):
        self.share = 6 // self.number
        print("said", self.share)
        self.next(self.end)

    @step
    def end(self):
        pass


def look(run):
    return asyncio.run(follow())


async def follow():
    with Runner(__file__, show_output=False, env=dict(os.environ)) as runner:
        executing = await runner.async_run(number=2)
        said = [line async for _, line in executing.stream_log("stdout")]
        await executing.wait()
        return {
            "said": any("said 3" in line for line in said),
            "status": executing.status,
            "run": executing.run.data.share,
        }


if __name__ == "__main__":
    RunnerAsyncFlow()
