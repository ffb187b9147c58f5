"""A mutator that reads a configuration."""

import os

from metaflow import Config, FlowMutator, FlowSpec, environment, step


class Coloured(FlowMutator):
    def mutate(self, mutable_flow):
        settings = dict(mutable_flow.configs)["settings"]
        for name, mutable_step in mutable_flow.steps:
            if name in settings.steps:
                mutable_step.add_decorator(environment, deco_kwargs={"vars": settings.env})


@Coloured
class ConfigMutatorFlow(FlowSpec):
    settings = Config("settings", default_value={"env": {"COLOUR": "red"}, "steps": ["start"]})

    @step
    def start(self):
        self.seen = os.environ.get("COLOUR")
        self.next(self.end)

    @step
    def end(self):
        self.seen_at_end = os.environ.get("COLOUR")


if __name__ == "__main__":
    ConfigMutatorFlow()
