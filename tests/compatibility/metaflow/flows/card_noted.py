"""A card that nobody writes to."""

from metaflow import FlowSpec, card, step


class CardNotedFlow(FlowSpec):
    @card(type="blank")
    @step
    def start(self):
        self.number = 1
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    CardNotedFlow()
