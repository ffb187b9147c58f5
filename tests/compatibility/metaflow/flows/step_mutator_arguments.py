"""A mutator of steps that takes arguments."""

import os

from metaflow import FlowSpec, StepMutator, step


class Variables(StepMutator):
    _allowed_kwargs = True

    def init(self, **variables):
        self.variables = variables

    def mutate(self, mutable_step):
        mutable_step.add_decorator("environment", deco_kwargs={"vars": self.variables})


class StepMutatorArgumentsFlow(FlowSpec):
    @Variables(COLOUR="red")
    @step
    def start(self):
        self.seen = os.environ["COLOUR"]
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    StepMutatorArgumentsFlow()
