"""Secrets of a kind that there is not."""

from metaflow import FlowSpec, secrets, step


class SecretsUnknownFlow(FlowSpec):
    @secrets(sources=["nowhere.at-all"])
    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    SecretsUnknownFlow()
