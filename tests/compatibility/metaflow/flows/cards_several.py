"""Several cards, which of them `current.card` is, and what `get_cards` finds."""

from metaflow import FlowSpec, card, current, step
from metaflow.cards import Artifact, Error, Image, Markdown, ProgressBar, Table, ValueBox, VegaChart


class CardsSeveralFlow(FlowSpec):
    @card
    @step
    def start(self):
        current.card.append(Markdown("# words of the start"))
        current.card.append(Table([["a", 1], ["b", Artifact({"x": 2})]], headers=["name", "value"]))
        current.card.append(Image(b"GIF89a\x01\x00\x01\x00\x00\x00\x00;", "a label"))
        current.card.append(Error(ValueError("no"), "a title"))
        current.card.append(VegaChart({"mark": "bar", "data": {"values": [{"a": 1}]}}))
        current.card.extend([ValueBox(title="Loss", value=0.5)])
        bar = ProgressBar(max=10, label="done")
        current.card.append(bar, id="bar")
        current.card.components["bar"].update(5)
        self.count = len(list(current.card.components))
        self.kinds = sorted(type(each).__name__ for each in current.card.components)
        self.next(self.named)

    @card(type="blank", id="one")
    @card(type="blank", id="two")
    @card
    @step
    def named(self):
        current.card.append(Markdown("unnamed words"))
        current.card["one"].append(Markdown("words of one"))
        current.card["two"].append(Markdown("replaced"))
        current.card["two"] = [Markdown("words of two")]
        self.of_type = [len(list(each)) for each in current.card.get(type="blank")]
        self.next(self.customized)

    @card(id="one")
    @card(id="two", customize=True)
    @step
    def customized(self):
        current.card.append(Markdown("words of the customized"))
        current.card["one"].append(Markdown("gone"))
        current.card["one"].clear()
        self.left = len(list(current.card["one"]))
        self.has = "card" in current
        self.next(self.end)

    @step
    def end(self):
        self.has = "card" in current


def look(run):
    from metaflow.cards import get_cards

    start = get_cards(run["start"].task)
    named = get_cards(run["named"].task)
    return {
        "of start": [(each.type, each.id) for each in start],
        "of named": sorted((each.type, each.id or "") for each in named),
        "by type": sorted(each.id for each in get_cards(run["named"].task, type="blank")),
        "by id": [each.type for each in get_cards(run["named"].task, id="two")],
        "by pathspec": len(get_cards(run["start"].task.pathspec)),
        "html": start[0].get().lstrip()[:9].lower(),
        "first": start[0].type == next(iter(start)).type,
        "none": len(get_cards(run["named"].task, id="none")),
        "notebook": "<" in named._repr_html_(),
    }


if __name__ == "__main__":
    CardsSeveralFlow()
