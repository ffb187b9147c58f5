"""What cannot be a tag."""

from metaflow import FlowSpec, step


class TagsRefusedFlow(FlowSpec):
    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        pass


def look(run):
    refused = []
    for change in (
        lambda: run.add_tag(""),
        lambda: run.add_tag(3),
        lambda: run.remove_tag(next(iter(run.system_tags))),
        lambda: run.add_tag("x" * 600),
    ):
        try:
            change()
        except Exception:  # noqa: BLE001 - each engine has errors of its own
            refused.append(True)
        else:
            refused.append(False)
    return {"refused": refused, "left": sorted(run.user_tags)}


if __name__ == "__main__":
    TagsRefusedFlow()
