"""`current.graph` describes the flow."""

from metaflow import FlowSpec, Parameter, current, retry, step


class CurrentGraphFlow(FlowSpec):
    """What it does."""

    size = Parameter("size", default=1)

    @step
    def start(self):
        """Begins."""
        self.items = [1]
        self.next(self.item, foreach="items")

    @retry(times=2)
    @step
    def item(self):
        self.next(self.join)

    @step
    def join(self, inputs):
        graph = current.graph
        self.steps = {name: node["type"] for name, node in sorted(graph["steps"].items())}
        self.next_ones = {name: node.get("next") for name, node in sorted(graph["steps"].items())}
        self.docs = (graph["doc"].strip(), graph["steps"]["start"]["doc"])
        self.ends = (graph["start_step"], graph["end_step"])
        self.decorators = [one["name"] for one in graph["steps"]["item"]["decorators"]]
        self.parameters = [one["name"] for one in graph["parameters"]]
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    CurrentGraphFlow()
