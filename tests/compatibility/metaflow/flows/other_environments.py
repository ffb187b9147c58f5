"""Decorators about packages do nothing without their environment."""

from metaflow import FlowSpec, conda, conda_base, pypi, pypi_base, step


@conda_base(python="3.11")
@pypi_base(packages={})
class OtherEnvironmentsFlow(FlowSpec):
    @conda(packages={"nothing": "1.0"})
    @step
    def start(self):
        self.ran = True
        self.next(self.middle)

    @pypi(packages={"nothing": "1.0"}, python="3.11")
    @step
    def middle(self):
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    OtherEnvironmentsFlow()
