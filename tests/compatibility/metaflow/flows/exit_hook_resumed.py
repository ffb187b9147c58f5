"""Functions after a resumed run."""

from pathlib import Path

from metaflow import FlowSpec, current, exit_hook, step


def say(word):
    with Path(__file__).with_name("said").open("a", encoding="utf-8") as file:
        file.write(f"{word} ")


def good(run):
    say("good")


def bad(run):
    say("bad")


@exit_hook(on_success=[good], on_error=[bad])
class ExitHookResumedFlow(FlowSpec):
    @step
    def start(self):
        if current.origin_run_id is None:
            raise ValueError("once")
        self.next(self.end)

    @step
    def end(self):
        pass


def look(run):
    return {"said": Path(__file__).with_name("said").read_text(encoding="utf-8")}


if __name__ == "__main__":
    ExitHookResumedFlow()
