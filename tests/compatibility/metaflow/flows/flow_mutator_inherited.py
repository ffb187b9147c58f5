"""A mutator of a base flow holds for the flows that come from it."""

import os

from metaflow import FlowMutator, FlowSpec, Parameter, current, environment, step


class Everywhere(FlowMutator):
    def pre_mutate(self, mutable_flow):
        mutable_flow.remove_parameter("unwanted")

    def mutate(self, mutable_flow):
        for _, mutable_step in mutable_flow.steps:
            if not mutable_step.has_decorator("environment"):
                mutable_step.add_decorator(environment, deco_kwargs={"vars": {"EVERYWHERE": "yes"}})


@Everywhere
class Base(FlowSpec):
    wanted = Parameter("wanted", default=2)

    @step
    def start(self):
        self.next(self.middle)

    @step
    def middle(self):
        self.next(self.end)

    @step
    def end(self):
        self.names = sorted(current.parameter_names)
        self.seen_at_end = os.environ.get("EVERYWHERE")


class FlowMutatorInheritedFlow(Base):
    unwanted = Parameter("unwanted", default=1)

    @step
    def middle(self):
        self.seen = os.environ.get("EVERYWHERE")
        self.next(self.end)


if __name__ == "__main__":
    FlowMutatorInheritedFlow()
