"""Parameters and decorators that are put on a flow by a mutator."""

import os

from metaflow import Config, FlowMutator, FlowSpec, Parameter, current, environment, step


class Prepared(FlowMutator):
    def pre_mutate(self, mutable_flow):
        sizes = {name: value.size for name, value in mutable_flow.configs}
        mutable_flow.add_parameter("added", Parameter("added", default=sizes["settings"]))

    def mutate(self, mutable_flow):
        for name, mutable_step in mutable_flow.steps:
            if name == "start":
                mutable_step.add_decorator(environment, deco_kwargs={"vars": {"OF_START": "yes"}})


@Prepared
class FlowMutatorFlow(FlowSpec):
    settings = Config("settings", default_value={"size": 4})
    own = Parameter("own", default=1)

    @step
    def start(self):
        self.seen = (self.own, self.added, os.environ.get("OF_START"))
        self.next(self.end)

    @step
    def end(self):
        self.seen_later = (self.added, os.environ.get("OF_START"))
        self.names = sorted(current.parameter_names)


if __name__ == "__main__":
    FlowMutatorFlow()
