"""A mutator that puts a decorator on the flow."""

from metaflow import FlowMutator, FlowSpec, current, step


class InProject(FlowMutator):
    def pre_mutate(self, mutable_flow):
        mutable_flow.add_decorator("project", deco_kwargs={"name": "shop"})


@InProject
class FlowMutatorDecoratorsFlow(FlowSpec):
    @step
    def start(self):
        self.name_of_project = current.get("project_name")
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    FlowMutatorDecoratorsFlow()
