"""Cards: what a step shows of itself, while it runs and later.

    from asyncflow import FlowSpec, card, current, step
    from asyncflow.cards import Image, Markdown, Table

    class Train(FlowSpec):
        @card
        @step
        def start(self):
            current.card.append(Markdown("# Accuracy"))
            current.card.append(Table([["train", 0.97], ["test", 0.91]], headers=["set", "value"]))

`get_cards(task)` finds them later; `asyncflow card view Flow/run/start` shows them.
"""

from __future__ import annotations

from asyncflow.card_content.card_type import CardType, MetaflowCard
from asyncflow.card_content.charts import EventsTimeline, VegaChart
from asyncflow.card_content.collector import CardCollector, CardComponents, CardManager
from asyncflow.card_content.component import CardComponent
from asyncflow.card_content.components import (
    Artifact,
    Error,
    JSONViewer,
    Markdown,
    ProgressBar,
    PythonCode,
    ValueBox,
    YAMLViewer,
)
from asyncflow.card_content.pictures import Image, Table
from asyncflow.client.cards import Card, CardContainer, get_cards

MetaflowCardComponent = CardComponent
"""Metaflow's name for it."""

__all__ = [
    "Artifact",
    "Card",
    "CardCollector",
    "CardComponent",
    "CardComponents",
    "CardContainer",
    "CardManager",
    "CardType",
    "Error",
    "EventsTimeline",
    "Image",
    "JSONViewer",
    "Markdown",
    "MetaflowCard",
    "MetaflowCardComponent",
    "ProgressBar",
    "PythonCode",
    "Table",
    "ValueBox",
    "VegaChart",
    "YAMLViewer",
    "get_cards",
]
