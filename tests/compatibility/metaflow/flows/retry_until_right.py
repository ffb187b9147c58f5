"""The third attempt succeeds; nothing of the first two is kept."""

from metaflow import FlowSpec, current, retry, step


class RetryUntilRightFlow(FlowSpec):
    @retry(times=3, minutes_between_retries=0)
    @step
    def start(self):
        if current.retry_count == 0:
            self.of_first = 1
        self.attempt = current.retry_count
        print("attempt", current.retry_count)
        if current.retry_count < 2:
            raise ValueError("once more")
        self.next(self.end)

    @step
    def end(self):
        pass


def look(run):
    return {"attempt": run["start"].task.current_attempt, "out": run["start"].task.stdout}


if __name__ == "__main__":
    RetryUntilRightFlow()
