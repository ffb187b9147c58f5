"""Several functions after a run, one of which fails."""

from pathlib import Path

from metaflow import FlowSpec, exit_hook, step


def say(word):
    with Path(__file__).with_name("said").open("a", encoding="utf-8") as file:
        file.write(f"{word} ")


def first(run):
    say(f"first {run.successful}")


def fails(run):
    raise ValueError("on purpose")


def last():
    say("last")


@exit_hook(on_success=[first, fails, last])
class ExitHookManyFlow(FlowSpec):
    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        pass


def look(run):
    return {"said": Path(__file__).with_name("said").read_text(encoding="utf-8")}


if __name__ == "__main__":
    ExitHookManyFlow()
