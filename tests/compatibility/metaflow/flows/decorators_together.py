"""Retries, a timeout, resources, variables and a failure that is caught, on one step."""

import os

from metaflow import FlowSpec, catch, current, environment, resources, retry, step, timeout


class DecoratorsTogetherFlow(FlowSpec):
    @retry(times=2, minutes_between_retries=0)
    @step
    def start(self):
        if current.retry_count < 2:
            raise ValueError("once more")
        self.attempt = current.retry_count
        self.divisors = [-1, 0, 2]
        self.next(self.divide, foreach="divisors")

    @catch(var="problem", print_exception=False)
    @timeout(hours=1)
    @resources(memory=100, cpu=1)
    @environment(vars={"DIVIDEND": "4"})
    @retry(times=0)
    @step
    def divide(self):
        self.share = int(os.environ["DIVIDEND"]) / self.input
        self.next(self.join)

    @step
    def join(self, inputs):
        self.shares = [each.share for each in inputs if not each.problem]
        self.problems = [index for index, each in enumerate(inputs) if each.problem]
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    DecoratorsTogetherFlow()
