"""Parents and children across branches and a foreach."""

from metaflow import FlowSpec, step


class LineageFlow(FlowSpec):
    @step
    def start(self):
        self.items = "ab"
        self.next(self.item, foreach="items")

    @step
    def item(self):
        self.next(self.left, self.right)

    @step
    def left(self):
        self.next(self.item_join)

    @step
    def right(self):
        self.next(self.item_join)

    @step
    def item_join(self, inputs):
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass


def look(run):
    return {
        step.id: (
            sorted(each.id for each in step.parent_steps),
            sorted(each.id for each in step.child_steps),
            sorted(len(list(task.parent_tasks)) for task in step),
            sorted(len(list(task.child_tasks)) for task in step),
        )
        for step in run
    }


if __name__ == "__main__":
    LineageFlow()
