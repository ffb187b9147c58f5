"""Values of a configuration in the arguments of decorators and parameters."""

import os

from metaflow import Config, FlowSpec, Parameter, config_expr, current, environment, retry, step


class ConfigInDecoratorsFlow(FlowSpec):
    settings = Config("settings", default_value={"times": 2, "name": "n", "env": {"KEY": "value"}})
    doubled = Parameter("doubled", type=int, default=config_expr("settings.times * 2"))
    same = Parameter("same", default=settings.name)

    @retry(times=settings.times, minutes_between_retries=0)
    @environment(vars={"JOINED": config_expr("settings.name + '!'"), "PLAIN": settings.env.KEY})
    @step
    def start(self):
        self.attempt = current.retry_count
        if self.attempt < self.settings.times:
            raise ValueError(self.attempt)
        self.seen = (os.environ["JOINED"], os.environ["PLAIN"], self.doubled, self.same)
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    ConfigInDecoratorsFlow()
