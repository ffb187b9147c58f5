"""`times=0` is for steps that are not to be repeated, even with `--with retry`."""

from metaflow import FlowSpec, current, retry, step


class RetryZeroFlow(FlowSpec):
    @retry(times=0)
    @step
    def start(self):
        self.attempt = current.retry_count
        if self.attempt == 0:
            raise ValueError("once")
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    RetryZeroFlow()
