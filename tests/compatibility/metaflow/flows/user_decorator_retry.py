"""A decorator runs with every attempt."""

from metaflow import FlowSpec, current, retry, step, user_step_decorator


@user_step_decorator
def count(step_name, flow, inputs=None, attributes=None):
    flow.attempt_before = current.retry_count
    yield
    flow.attempt_after = current.retry_count


class UserDecoratorRetryFlow(FlowSpec):
    @retry(times=2, minutes_between_retries=0)
    @count
    @step
    def start(self):
        self.seen = self.attempt_before
        if current.retry_count < 1:
            raise ValueError("once more")
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    UserDecoratorRetryFlow()
