"""`asyncflow card`: list the cards of tasks, view one, keep one as a file, serve those of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asyncflow.cli.common_options import json_option, store_option
from asyncflow.cli.look_commands import find, pathspec_argument, print_json, whole
from asyncflow.cli.stdout_errors import print_lines, print_output, refuse_terminal
from asyncflow.errors import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncflow.client.cards import Card
    from asyncflow.client.objects import Run, Task
    from asyncflow.flow.spec import FlowSpec

_PORT = 8324  # Metaflow's
_MOST_LISTED = 200
_OF_TASKS = 2, 3, 4
"""A run, a step, or a task."""


def make_card(flow: type[FlowSpec] | None, script: str) -> click.Group:  # noqa: ARG001 - as its siblings
    return click.Group(
        "card",
        commands=[_make_list(flow), _make_view(flow), _make_get(flow), _make_server(flow)],
        help=(
            "Look at what steps under @card show of themselves. PATHSPEC is a task, or a step or a "
            "run with a single one."
        ),
        short_help="Look at the cards of tasks.",
    )


# --- which card -------------------------------------------------------------------------------


def _choices() -> list[click.Parameter]:
    return [
        click.Option(["--id"], metavar="ID", help="Only the card with this id."),
        click.Option(["--type"], metavar="TYPE", help="Only cards of this type."),
        click.Option(
            ["--hash"], metavar="HASH", help="Only the card whose hash begins like this; see list."
        ),
        click.Option(
            ["--follow-resumed/--no-follow-resumed"],
            default=True,
            help="Whether a task that was taken over by a resume has the cards of its origin.",
        ),
        store_option(),
    ]


def _tasks(pathspec: str, store: Path | str | None) -> Iterator[Task]:
    """The tasks of a run, a step or a task, those of steps under @card alone."""
    found = find(pathspec, store)
    match whole(pathspec, store).count("/"):
        case 1:
            run: Run = found
            graph = run.graph
            for step in run:
                if graph[step.id].options.get("card"):
                    yield from step
        case 2:
            yield from found
        case _:
            yield found


def _cards(task: Task, chosen: dict[str, Any]) -> list[Card]:
    from asyncflow.client.cards import get_cards

    cards = get_cards(task, chosen["id"], chosen["type"], chosen["follow_resumed"])
    begin = chosen["hash"] or ""
    return [card for card in cards if card.hash.startswith(begin)]


def _the_card(pathspec: str, store: Path | str | None, chosen: dict[str, Any]) -> Card:
    """The only card that is meant.

    Raises:
        NotFoundError: There is none, or there are several.
    """
    found: list[Card] = []
    for task in _tasks(pathspec, store):
        found += _cards(task, chosen)
        if len(found) > _MOST_LISTED:
            break
    if len(found) == 1:
        return found[0]
    if not found:
        message = f"{pathspec} has no such card: its steps have no @card, or none is chosen so"
        raise NotFoundError(message)
    listed = "\n".join(_lines(found[:20]))
    message = f"{pathspec} has several cards: name the task, or choose by --id or --hash\n{listed}"
    raise NotFoundError(message)


# --- commands ---------------------------------------------------------------------------------


def _make_list(flow: type[FlowSpec] | None) -> click.Command:
    def list_cards(
        pathspec: str,
        store: Path | str | None,
        *,
        as_json: bool,
        as_metaflows_json: bool,
        **chosen: Any,
    ) -> None:
        found: list[Card] = []
        for task in _tasks(pathspec, store):
            found += _cards(task, chosen)
            if len(found) > _MOST_LISTED and not as_json:
                break
        if as_json or as_metaflows_json:
            print_json([_facts(card) for card in found])
            return
        lines = list(_lines(found[:_MOST_LISTED]))
        if len(found) > _MOST_LISTED:
            lines.append(f"… more than {_MOST_LISTED} cards: name a step or a task")
        print_lines(lines or ["no cards"])

    metaflows = click.Option(["--as-json", "as_metaflows_json"], is_flag=True, hidden=True)
    return click.Command(
        "list",
        params=[pathspec_argument(flow, *_OF_TASKS), *_choices(), json_option(), metaflows],
        callback=list_cards,
        help="List the cards of a task, of a step or of a run.",
    )


def _facts(card: Card) -> dict[str, Any]:
    return {
        "pathspec": card.pathspec,
        "type": card.type,
        "id": card.id,
        "name": card.name,
        "number": card.number,
        "hash": card.hash,
    }


def _lines(cards: list[Card]) -> Iterator[str]:
    for card in cards:
        named = f" id {card.id}" if card.id is not None else ""
        yield f"{card.pathspec}  {card.type}{named}  {card.hash}"


def _make_view(flow: type[FlowSpec] | None) -> click.Command:
    def view(pathspec: str, store: Path | str | None, **chosen: Any) -> None:
        card = _the_card(pathspec, store, chosen)
        print_lines([f"The card is at {card.view()}"])

    return click.Command(
        "view",
        params=[pathspec_argument(flow, *_OF_TASKS), *_choices()],
        callback=view,
        help="Open a card in a browser of this machine, as it is now.",
    )


def _make_get(flow: type[FlowSpec] | None) -> click.Command:
    def get(
        pathspec: str, path: Path | None, store: Path | str | None, *, as_json: bool, **chosen: Any
    ) -> None:
        card = _the_card(pathspec, store, chosen)
        if as_json:
            print_json(card.drawing())
            return
        if path is None:
            refuse_terminal("a card", f"{pathspec} card.html")
            print_output(card.get(), raw=True)
            return
        html = card.get()
        path.write_text(html, encoding="utf-8")
        print_lines([f"{card.pathspec}: {card.type} card in {path}"])

    return click.Command(
        "get",
        params=[
            pathspec_argument(flow, *_OF_TASKS),
            click.Argument(
                ["path"], required=False, type=click.Path(dir_okay=False, path_type=Path)
            ),
            *_choices(),
            json_option(),
        ],
        callback=get,
        help=(
            "Write a card as one HTML file, which needs no network, to PATH or into a pipe. "
            "With --json, write the data that a page draws."
        ),
    )


def _make_server(flow: type[FlowSpec] | None) -> click.Command:
    def server(
        pathspec: str | None,
        run_id: str | None,
        port: int,
        poll_interval: float,
        max_cards: int,
        store: Path | str | None,
        **_: Any,
    ) -> None:
        from asyncflow.cli.card_server import CardServer

        named = pathspec or (flow.__name__ if flow is not None else "latest")
        named = f"{named}/{run_id}" if run_id is not None else named
        found = find(named, store)
        with CardServer(found, port, seconds=poll_interval, most=max_cards) as serving:
            click.echo(f"The cards of {found.pathspec} are at {serving.address}\nCtrl-C ends this.")
            serving.serve_forever()

    return click.Command(
        "server",
        params=[
            pathspec_argument(flow, 1, 2, required=False),
            click.Option(["--run-id"], metavar="ID", help="The run; by default the latest."),
            click.Option(
                ["--port"],
                type=click.IntRange(0, 65535),
                default=_PORT,
                show_default=True,
                metavar="N",
                help="The port of the page; 0 for any that is free.",
            ),
            click.Option(
                ["--poll-interval"],
                type=click.FloatRange(0.05, 3600),
                default=0.1,
                show_default=True,
                metavar="SECONDS",
                help="How often to look for what is new.",
            ),
            click.Option(
                ["--max-cards"],
                type=click.IntRange(1, 1000),
                default=30,
                show_default=True,
                metavar="N",
                help="The most cards that are shown, the newest ones.",
            ),
            click.Option(["--namespace"], hidden=True, expose_value=True),
            store_option(),
        ],
        callback=server,
        help=(
            "Serve a page with the cards of a run, or of each new run of a flow, on this machine, "
            "live, until Ctrl-C. It needs nothing installed; `asyncflow ui` shows all else as well."
        ),
        short_help="Serve the cards of a run, live.",
    )
