"""A mutator takes a decorator away."""

from metaflow import FlowSpec, StepMutator, current, retry, step


class Bare(StepMutator):
    def mutate(self, mutable_step):
        for name, *_ in list(mutable_step.decorator_specs):
            if name == "retry":
                mutable_step.remove_decorator(name)


class MutatorRemovesFlow(FlowSpec):
    @Bare
    @retry(times=3, minutes_between_retries=0)
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
    MutatorRemovesFlow()
