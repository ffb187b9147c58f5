"""The commands by name, each loaded when it is used, and the handling of their errors."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Final, NoReturn

import click

from asyncflow.cli import metaflow_options
from asyncflow.cli.exit_status import FAILED, INTERRUPTED, MISUSED, SUCCEEDED
from asyncflow.cli.stdout_errors import STANDARD_OUTPUT, cannot_write, named_stdout, visible_stderr
from asyncflow.errors import (
    AsyncflowError,
    CopyError,
    FlowError,
    NotFoundError,
    ParameterError,
    RemoveError,
    ResumeError,
    SettingsError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asyncflow.flow.spec import FlowSpec

_MODULES: Final = {
    "run": "asyncflow.cli.run_commands",
    "resume": "asyncflow.cli.run_commands",
    "check": "asyncflow.cli.run_commands",
    "graph": "asyncflow.cli.run_commands",
    "step": "asyncflow.cli.spin_command",
    "spin": "asyncflow.cli.spin_command",
    "cancel": "asyncflow.cli.cancel_command",
    "ui": "asyncflow.cli.ui_command",
    "runs": "asyncflow.cli.look_commands",
    "show": "asyncflow.cli.look_commands",
    "logs": "asyncflow.cli.look_commands",
    "dump": "asyncflow.cli.look_commands",
    "events": "asyncflow.cli.look_commands",
    "card": "asyncflow.cli.card_commands",
    "report": "asyncflow.cli.report_command",
    "code": "asyncflow.cli.code_commands",
    "diff": "asyncflow.cli.code_commands",
    "tag": "asyncflow.cli.tag_commands",
    "limit": "asyncflow.cli.limit_commands",
    "verify": "asyncflow.cli.store_commands",
    "gc": "asyncflow.cli.store_commands",
    "rm": "asyncflow.cli.store_commands",
    "push": "asyncflow.cli.push_command",
    "copy": "asyncflow.cli.copy_command",
    "executor": "asyncflow.cli.executor_commands",
}
"""The module that has the function `make_NAME` of each command."""


class Commands(click.Group):
    """The commands of `asyncflow`, or those of one flow, which then need no FILE."""

    def __init__(self, flow: type[FlowSpec] | None = None, script: str = "") -> None:
        super().__init__(
            name="asyncflow" if flow is None else flow.__name__,
            help=_about(flow),
            context_settings={"help_option_names": ["--help", "-h"]},
        )
        self._flow, self._script = flow, script
        self.params += [_version_option()] if flow is None else _before_commands()

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's
        """All commands, in the order in which a user meets them."""
        return list(_MODULES)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the first argument names; an error suggests a similar name."""
        args = [*metaflow_options.COMMANDS.get(args[0], args[:1]), *args[1:]]
        name = args[0]
        if name == "version":  # the number alone, as in Metaflow
            from asyncflow import __version__

            click.echo(__version__)
            ctx.exit()
        if name == "--help":
            click.echo(ctx.get_help())
            ctx.exit()
        if name not in _MODULES and not name.startswith("-"):
            from asyncflow._support.suggestions import did_you_mean

            ctx.fail(f"there is no command {name!r}{did_you_mean(name, _MODULES)}")
        return super().resolve_command(ctx, args)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's
        cmd_name: str,
    ) -> click.Command | None:
        if cmd_name not in _MODULES:
            return None
        module = importlib.import_module(_MODULES[cmd_name])
        make: Callable[..., click.Command] = getattr(module, f"make_{cmd_name}")
        return make(self._flow, self._script)


def _show_version(ctx: click.Context) -> NoReturn:
    from asyncflow import __version__

    click.echo(f"asyncflow {__version__}")
    ctx.exit()


def _version_option() -> click.Option:
    def show_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:  # noqa: FBT001 - click's
        if wanted:
            _show_version(ctx)

    return click.Option(
        ["--version"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=show_version,
        help="Show the version and exit.",
    )


def _before_commands() -> list[click.Option]:
    from asyncflow.cli.flow_options import run_choices

    return [*metaflow_options.before_commands(), *run_choices()]


def _about(flow: type[FlowSpec] | None) -> str:
    if flow is not None:
        return flow.__doc__ or f"The flow {flow.__name__}."
    return "Run data and machine-learning workflows, and look at what was run."


def invoke(
    arguments: Sequence[str], *, flow: type[FlowSpec] | None = None, script: str = ""
) -> int:
    """Run a command and return its exit status. Errors have been printed to stderr."""
    with visible_stderr():
        return _invoke(arguments, flow, script)


def _invoke(arguments: Sequence[str], flow: type[FlowSpec] | None, script: str) -> int:
    group = Commands(flow, script)
    name = "asyncflow" if flow is None else f"python {script}"
    words = list(arguments)
    if not words and flow is not None:  # as in Metaflow
        words = ["check"]
    try:
        with named_stdout():
            result = group.main(words, prog_name=name, standalone_mode=False)
            if words != list(arguments):
                click.echo(f"To run it:  {name} run\nMore:       {name} --help")
    except click.ClickException as error:
        error.show(file=sys.stderr)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except (AsyncflowError, RuntimeError) as error:
        return complain(_in_words(error))
    except (OSError, MemoryError) as error:  # a file that may not be read, a full disk
        # a reader that is gone, as after `| head`, misses nothing
        if not isinstance(error, BrokenPipeError):
            click.echo(f"Error: {_said(error)}", err=True)
        return FAILED
    if not words:
        return MISUSED  # the help was shown, and nothing was done
    return result if isinstance(result, int) else SUCCEEDED


def _said(error: OSError | MemoryError) -> str:
    if isinstance(error, MemoryError):
        return "there is not enough memory for this"
    is_output = error.filename == STANDARD_OUTPUT
    return cannot_write(error.strerror) if is_output else str(error)


def _in_words(error: AsyncflowError | RuntimeError) -> AsyncflowError:
    """The error's text if memory, descriptors or threads are short; any other error is raised."""
    if isinstance(error, AsyncflowError):
        return error
    from asyncflow._support.thread_pool import is_lack_of_threads, no_thread

    if is_lack_of_threads(error):
        return no_thread(error)
    raise error


_MISUSE: Final = (
    CopyError,
    FlowError,
    NotFoundError,
    ParameterError,
    RemoveError,
    ResumeError,
    SettingsError,
)


def complain(error: AsyncflowError) -> int:
    """Print an error; return the exit status for it."""
    click.echo(f"Error: {error}", err=True)
    return MISUSED if isinstance(error, _MISUSE) else FAILED
