"""What a flow tells."""

from metaflow import Flow, FlowSpec, Metaflow, step


class ClientFlowFlow(FlowSpec):
    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        pass


def look(run):
    flow = Flow(run.pathspec.split("/")[0])
    return {
        "id": (flow.id, flow.pathspec, list(flow.path_components), flow.parent),
        "latest": (flow.latest_run.id == run.id, flow.latest_successful_run.id == run.id),
        "runs": len(list(flow)),
        "in": (run.id in flow, "1" in flow),
        "item": flow[run.id].pathspec == run.pathspec,
        "all": [each.id for each in Metaflow().flows if each.id == flow.id],
        "tags": (flow.user_tags, flow.origin_pathspec),
    }


if __name__ == "__main__":
    ClientFlowFlow()
