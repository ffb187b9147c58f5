"""A program that runs flow files."""

import os

from metaflow import FlowSpec, Parameter, Runner, step


class RunnerFlow(FlowSpec):
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
    with Runner(__file__, show_output=False, env=dict(os.environ)) as runner:
        with runner.run(number=3, tags=["by-runner"]) as executing:
            told = {
                "status": (executing.status, executing.returncode),
                "run": (executing.run.successful, executing.run.data.share),
                "tags": "by-runner" in executing.run.tags,
                "said": "said 2" in executing.stdout,
            }
        failed = runner.run(number=0)
        told["failed"] = (failed.status, failed.returncode != 0, failed.run.successful)
        again = runner.resume(origin_run_id=failed.run.id)
        told["again"] = again.status
        try:
            runner.run(nowhere=1)
        except Exception:  # noqa: BLE001 - each engine has errors of its own
            told["refused"] = True
    return told


if __name__ == "__main__":
    RunnerFlow()
