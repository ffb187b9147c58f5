"""Tags that are changed after the run."""

from metaflow import FlowSpec, Run, step


class TagsChangedFlow(FlowSpec):
    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        pass


def look(run):
    said = [run.add_tag("a"), run.add_tags(["b", "c"]), run.remove_tag("a")]
    after = [sorted(run.user_tags)]
    run.replace_tag("b", "d")
    after.append(sorted(run.user_tags))
    run.replace_tags(["c", "d"], ["e", "f"])
    after.append(sorted(run.user_tags))
    run.remove_tags(["e", "nowhere"])
    after.append(sorted(run.user_tags))
    run.add_tag(next(iter(run.system_tags)))
    after.append(sorted(Run(run.pathspec).user_tags))
    run.remove_tag("f")
    return {"said": said, "after": after, "of a task": sorted(run["end"].task.user_tags)}


if __name__ == "__main__":
    TagsChangedFlow()
