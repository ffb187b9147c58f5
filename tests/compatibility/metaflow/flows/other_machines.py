"""Decorators about machines that are not there do nothing here."""

from metaflow import FlowSpec, schedule, step, trigger, trigger_on_finish


@schedule(daily=True)
@trigger(event="arrived")
@trigger_on_finish(flow="OtherFlow")
class OtherMachinesFlow(FlowSpec):
    @step
    def start(self):
        self.ran = True
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    OtherMachinesFlow()
