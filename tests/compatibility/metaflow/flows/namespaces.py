"""Runs are found in the namespace of who made them, or of a tag."""

from metaflow import Flow, FlowSpec, default_namespace, get_namespace, namespace, step


class NamespacesFlow(FlowSpec):
    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        pass


def look(run):
    flow = run.pathspec.split("/")[0]
    own = (default_namespace(), get_namespace())
    seen = [run.is_in_namespace()]
    namespace("one")
    seen.append(len(list(Flow(flow))))
    namespace("user:somebody-else")
    try:
        Flow(flow)
    except Exception as error:  # noqa: BLE001 - each engine has errors of its own
        seen.append("NamespaceMismatch" in type(error).__name__)
    namespace(None)
    seen += [get_namespace(), len(list(Flow(flow)))]
    default_namespace()
    return {"own": own, "seen": seen}


if __name__ == "__main__":
    NamespacesFlow()
