"""A function is called after a run that has failed."""

from pathlib import Path

from metaflow import FlowSpec, exit_hook, step


def succeeded(run):
    Path(__file__).with_name("said").write_text(f"succeeded {run.successful}", encoding="utf-8")


def failed(run):
    Path(__file__).with_name("said").write_text(f"failed {run.successful}", encoding="utf-8")


@exit_hook(on_success=[succeeded], on_error=[failed])
class ExitHookFailureFlow(FlowSpec):
    @step
    def start(self):
        self.number = 0
        self.next(self.end)

    @step
    def end(self):
        self.share = 1 // self.number


def look(run):
    return {"said": Path(__file__).with_name("said").read_text(encoding="utf-8")}


if __name__ == "__main__":
    ExitHookFailureFlow()
