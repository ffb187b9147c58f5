"""asyncflow: events, artifacts and the run's state are files, written before the task counts."""

from asyncflow import FlowSpec, Parameter, step


class Squares(FlowSpec):
    """Four steps, the second as often as asked for."""

    width = Parameter("width", default=1)

    @step
    def start(self):
        """Fan out."""
        self.numbers = range(self.width)
        self.next(self.work, foreach="numbers")

    @step
    def work(self):
        """One task of many."""
        self.square = self.input**2
        self.next(self.join)

    @step
    def join(self, inputs):
        """Add up."""
        self.total = sum(task.square for task in inputs)
        self.next(self.end)

    @step
    def end(self):
        """Tell."""
        print("total", self.total)


if __name__ == "__main__":
    Squares()
