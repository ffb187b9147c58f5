"""Tags from the command line."""

from metaflow import Flow, FlowSpec, current, step


class TagsFlow(FlowSpec):
    @step
    def start(self):
        self.seen = sorted(current.tags)
        self.next(self.end)

    @step
    def end(self):
        pass


def look(run):
    return {
        "user": sorted(run.user_tags),
        "of a task": sorted(run["start"].task.user_tags),
        "kinds": (type(run.tags).__name__, type(run.user_tags).__name__),
        "all": run.user_tags <= run.tags and run.system_tags <= run.tags,
        "found": len(list(Flow("TagsFlow").runs("one", "two"))),
        "not found": len(list(Flow("TagsFlow").runs("one", "three"))),
    }


if __name__ == "__main__":
    TagsFlow()
