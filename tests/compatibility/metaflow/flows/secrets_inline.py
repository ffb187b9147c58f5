"""Secrets in the environment of one step."""

import os

from metaflow import FlowSpec, secrets, step


class SecretsInlineFlow(FlowSpec):
    @secrets(
        sources=[
            {"type": "inline", "id": "login", "options": {"env_vars": {"PASSWORD": "hidden"}}},
        ]
    )
    @step
    def start(self):
        self.length = len(os.environ["PASSWORD"])
        self.next(self.end)

    @step
    def end(self):
        self.later = os.environ.get("PASSWORD")


if __name__ == "__main__":
    SecretsInlineFlow()
