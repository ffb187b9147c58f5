"""A task's attempts, each by itself."""

from metaflow import FlowSpec, Task, current, retry, step


class ClientAttemptsFlow(FlowSpec):
    @retry(times=2, minutes_between_retries=0)
    @step
    def start(self):
        self.attempt = current.retry_count
        print("attempt", current.retry_count)
        if current.retry_count < 1:
            raise ValueError("once more")
        self.next(self.end)

    @step
    def end(self):
        pass


def look(run):
    path = run["start"].task.pathspec
    return {
        "out": [Task(path, attempt=attempt).stdout for attempt in (0, 1)],
        "number": [Task(path, attempt=attempt).current_attempt for attempt in (0, 1)],
        "of the last": Task(path).stdout,
    }


if __name__ == "__main__":
    ClientAttemptsFlow()
