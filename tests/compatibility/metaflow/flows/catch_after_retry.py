"""Retries come first, then the failure is caught."""

from metaflow import FlowSpec, catch, current, retry, step


class CatchAfterRetryFlow(FlowSpec):
    @catch(var="problem")
    @retry(times=2, minutes_between_retries=0)
    @step
    def start(self):
        self.attempt = current.retry_count
        raise ValueError("always") if current.retry_count < 9 else SystemExit
        self.next(self.end)

    @step
    def end(self):
        self.failed = bool(self.problem)


if __name__ == "__main__":
    CatchAfterRetryFlow()
