"""A flow that has `start` and nothing else."""

from metaflow import FlowSpec, step


class OneStepStartFlow(FlowSpec):
    @step
    def start(self):
        self.number = 1


if __name__ == "__main__":
    OneStepStartFlow()
