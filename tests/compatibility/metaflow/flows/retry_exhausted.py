"""All attempts fail."""

from metaflow import FlowSpec, current, retry, step


class RetryExhaustedFlow(FlowSpec):
    @retry(times=1, minutes_between_retries=0)
    @step
    def start(self):
        self.attempt = current.retry_count
        if self.attempt >= 0:
            raise ValueError("always")
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    RetryExhaustedFlow()
