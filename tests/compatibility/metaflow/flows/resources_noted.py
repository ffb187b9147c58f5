"""Resources, noted for the step."""

from metaflow import FlowSpec, resources, step


class ResourcesNotedFlow(FlowSpec):
    @resources(cpu=1, memory=100)
    @step
    def start(self):
        self.ran = True
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    ResourcesNotedFlow()
