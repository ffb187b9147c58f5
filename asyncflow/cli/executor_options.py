"""The options that say where tasks run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from asyncflow.workers.interface import ExecutorFactory

EXECUTORS: Final = ("local", "dask", "ray")


def executor_options(*, default: str = "local") -> list[click.Parameter]:
    """`--executor` and `--address`."""
    return [
        click.Option(
            ["--executor"],
            type=click.Choice(EXECUTORS),
            default=default,
            show_default=True,
            help="Where tasks run: in processes of this machine, or on a cluster.",
        ),
        click.Option(
            ["--address"],
            metavar="ADDRESS",
            help="The cluster's: tcp://HOST:PORT for Dask, auto or ray://HOST:PORT for Ray. "
            "Without it, one is started on this machine.",
        ),
    ]


def executor_of(name: str, address: str | None, workers: int | None) -> ExecutorFactory | None:
    """What starts the executor of these options; None for the default one.

    Raises:
        click.UsageError: An address was given for this machine.
    """
    if name == "local":
        if address is not None:
            message = "--address is that of a cluster: it needs --executor dask or --executor ray"
            raise click.UsageError(message)
        return None
    from asyncflow.executors import Dask, Ray

    if name == "dask":
        return Dask(address, workers=workers)
    return Ray(address, workers=workers)
