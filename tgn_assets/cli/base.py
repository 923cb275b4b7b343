"""What all commands of `tgn` share: weeks as parameters, errors in one line, and `--verbose`."""

import select
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from tgn_assets.ml.safe_text import of_the_system, safe_error, safe_text
from tgn_assets.ml.weeks import week_key, week_number

if TYPE_CHECKING:
    from tgn_assets.state.home import Home

INTERRUPTED = 130
ERROR = "Error: "
"""What click puts before the message of an error."""
WHAT_IS_LEFT = "`tgn status` says what is published and what is left to do"


class Commands(click.Group):
    """Turns an error into one line and exit code 1; `--verbose` adds the traceback. A terminal gets lines that fit."""

    def invoke(self, ctx: click.Context) -> Any:
        """Invokes the command, as click does."""
        try:
            return self._invoke(ctx)
        except click.ClickException as error:
            from tgn_assets.cli.console import fitted

            before = ERROR + error.format_message().removesuffix(error.message)  # of a parameter, its name
            vars(error)["message"] = fitted(error.message, before, " " * len(ERROR))  # click calls it final
            raise

    def _invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt:
            click.echo("interrupted; nothing was left half done", err=True)
            ctx.exit(INTERRUPTED)
        except Exception as error:
            if isinstance(error, BrokenPipeError) and _reader_has_gone():  # the last words were for nobody
                ctx.exit(0)
            from tgn_assets.ml.connectors.duckdb_session import was_interrupted

            if was_interrupted(error):
                click.echo("interrupted; nothing was left half done", err=True)
                ctx.exit(INTERRUPTED)
            if ctx.meta.get("verbose"):
                import traceback

                traceback.print_exception(safe_error(error))
            if getattr(error, "interrupted", False):
                click.echo(str(error), err=True)
                ctx.exit(INTERRUPTED)
            raise click.ClickException(explain(error)) from error


def _reader_has_gone() -> bool:
    """Whether stdout or stderr is a pipe that nobody reads any more."""
    outputs = select.poll()
    for number in (1, 2):
        outputs.register(number, 0)  # for errors alone
    return bool(outputs.poll(0))


def explain(error: Exception) -> str:
    """What to print about `error`; the messages of our own errors say what to do."""
    text = safe_text(" ".join(str(error).split())) or type(error).__name__
    run = getattr(error, "run_id", None)
    if run:
        return f"{text}\nThe UI (`tgn dev`) shows it as run {run}; {WHAT_IS_LEFT}."
    if type(error).__module__.startswith("tgn_assets"):
        return text
    if isinstance(error, OSError) and error.strerror:
        return of_the_system(error)
    return f"{type(error).__name__}: {text}\nThe option --verbose shows where."


class Week(click.ParamType):
    """A week, named by its Monday."""

    name = "YYYY-MM-DD"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """`value`, or a usage error if it is not the date of a Monday."""
        try:
            return week_key(week_number(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


def named_home() -> "Home":
    """The home that the settings name, whether it is there or not; SettingsError if they cannot be used."""
    from tgn_assets.settings import read_settings
    from tgn_assets.state.home import Home

    return Home(read_settings())


def open_home() -> "Home":
    """The home that the settings name, made ready."""
    return named_home().ensure()


def existing_home() -> "Home":
    """The home that the settings name, for a command that makes none; ClickException if it is not there."""
    home = named_home()
    for wrong in filter(None, (home.missing(), *home.misplaced())):
        raise click.ClickException(wrong)
    return home


def _flag(*names: str, help: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """An option that the context remembers by its name, and the command is not given."""

    def remember(ctx: click.Context, option: click.Parameter, value: bool) -> None:
        ctx.meta[str(option.name)] = value

    return click.option(*names, is_flag=True, expose_value=False, callback=remember, help=help)


verbose_option = _flag("-v", "--verbose", help="Show Dagster's own log, and the traceback of an error.")
json_option = _flag("--json", help="Print one JSON document, for programs, instead of text.")
"""Lets `console.answer` print a command's results as one document."""


def is_verbose() -> bool:
    """Whether the current command was given `--verbose`."""
    return bool(click.get_current_context().meta["verbose"])


def is_json() -> bool:
    """Whether the current command, if there is one, was given `--json`."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.meta["json"])
