"""Decorators that are put on a step by a mutator."""

import os

from metaflow import FlowSpec, StepMutator, current, environment, step


class Hardened(StepMutator):
    def mutate(self, mutable_step):
        mutable_step.add_decorator("retry", deco_kwargs={"times": 1, "minutes_between_retries": 0})
        mutable_step.add_decorator(environment, deco_kwargs={"vars": {"MUTATED": "yes"}})


class StepMutatorFlow(FlowSpec):
    @Hardened
    @step
    def start(self):
        self.attempt = current.retry_count
        if self.attempt == 0:
            raise ValueError("once")
        self.seen = os.environ["MUTATED"]
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    StepMutatorFlow()
