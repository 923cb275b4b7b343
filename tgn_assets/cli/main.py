"""`tgn`: the weekly pipeline from a terminal, on the same definitions and event log as the Dagster UI.

Modules are imported where they are used: importing Dagster and torch takes seconds, and `tgn --help` must not.
"""

import gc
import os
import signal
import sys
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING

import click

from tgn_assets.cli.base import (
    Commands,
    Week,
    existing_home,
    is_verbose,
    json_option,
    named_home,
    open_home,
    verbose_option,
)
from tgn_assets.cli.forget import forget
from tgn_assets.cli.models import models
from tgn_assets.cli.server import dev, serve
from tgn_assets.ml.safe_text import printable, safe_text
from tgn_assets.ml.weeks import shift, week_number, week_of
from tgn_assets.state.process import prepare_process

if TYPE_CHECKING:
    from tgn_assets.state.home import Home

OBJECTS_PER_COLLECTION = 200_000


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="tgn_assets", message="tgn %(version)s")
def cli() -> None:
    """Every user's top-5 events for the next week, from a log of interactions, refreshed week by week.

    TGN_SOURCE and TGN_HOME (environment or .env) name the log and the folder of all state; the defaults are a
    synthetic log and .tgn. docs/reference.md lists all settings. A week is named by its Monday, as 2024-01-29.

    First steps: `tgn check` says what was understood of the log, `tgn refresh` trains on it and publishes lists,
    `tgn status` says what is published, and `tgn top5 USER` prints a list.

    Exit codes: 0 done, 1 failed (one line says why and what to do), 2 wrong usage, 130 interrupted (Ctrl-C, SIGTERM).
    """


@cli.command(short_help="Write synthetic interactions as CSV.")
@click.option("--weeks", type=click.IntRange(1), default=26, show_default=True, help="How many weeks to write.")
@click.option("--start-week", type=Week(), help="First week.  [default: so that the last one has just closed]")
@click.option(
    "--seed", type=click.IntRange(0, (1 << 63) - 1), default=0, show_default=True, help="Each seed gives another world."
)
@verbose_option
def generate(weeks: int, start_week: str | None, seed: int) -> None:
    """Write synthetic interactions as CSV to stdout.

    The same seed and week always give the same rows.

        tgn generate > user_event_interactions.csv
    """
    from tgn_assets.ml.sources.synthetic import World, write_csv

    first = start_week or shift(_this_week(), -weeks)
    with suppress(BrokenPipeError):  # whoever reads it has enough
        write_csv(sys.stdout, first, weeks, World(seed=seed), lambda text: click.echo(text, err=True))


@cli.command(short_help="Run what is pending, or one week.")
@click.option("--week", type=Week(), help="Run this week alone.  [default: all that is pending]")
@click.option("--if-needed", is_flag=True, help="Do what is pending and nothing else: for cron.")
@json_option
@verbose_option
def refresh(week: str | None, if_needed: bool) -> None:
    """Run what `tgn status` lists as to do, oldest week first: ingest, score last week's lists, train, publish lists.

    The newest closed week is run even if it is complete, unless --if-needed is given. Earlier weeks that were never
    ingested are ingested first. A run waits while another one is in progress. A week that fails or is interrupted keeps
    its published lists; run it again to repair it.

    It says which weeks were run, and which were not and why.
    """
    from tgn_assets.automation.backlog import Backlog
    from tgn_assets.cli.console import Progress, answer
    from tgn_assets.cli.refresh import SHOWN, refresh_weeks, sections
    from tgn_assets.cli.runner import open_runner

    if week and if_needed:
        raise click.UsageError("--week runs a week whether it is needed or not; leave out one of both options")
    home = open_home()
    with Progress() as progress:
        progress.begin("reading the source")
        backlog = None if week else Backlog(home)
        if backlog and (early := backlog.early_end()):
            raise click.ClickException(f"{early} No week is run until then, unless --week names it")
        chosen = _closed_week(home, backlog.observation.newest_closed if backlog else week)
        with open_runner(home, progress, is_verbose()) as runner:
            refreshed = refresh_weeks(home, runner, chosen, backlog, if_needed=if_needed)
    answer(sections(home, refreshed), SHOWN)
    if refreshed.failure:
        raise refreshed.failure


@cli.command(short_help="Run the last weeks again, and score their lists beside the baselines.")
@click.option("--weeks", type=click.IntRange(1), required=True, help="How many weeks of lists to score.")
@click.option("--show-lists", is_flag=True, help="Print some of the newest lists as well.")
@json_option
@verbose_option
def backtest(weeks: int, show_lists: bool) -> None:
    """Walk forward over the last closed weeks and score every week's lists beside the baselines.

    Each week is run with what was known when it closed, oldest first; its lists are scored on the week after. To score
    N weeks, the last N+1 are run. Earlier weeks are ingested first. The results are kept, as if each week had been run
    when it closed.

    The models of a week go on from those of the week before. Lists depend on the log up to their week, the settings,
    and where this chain began: where the home has no models yet, in the first of the N+1 weeks. A home that began in
    another week has lists that differ a little.
    """
    from tgn_assets.cli.console import Progress, answer
    from tgn_assets.cli.runner import open_runner
    from tgn_assets.reporting.terminal import backtest_tables, closing_lines, sample_table

    home = open_home()
    with Progress() as progress:
        progress.begin("reading the source")
        newest, first = _closed_week(home, home.newest_closed_week()), home.start_week()
        closed = week_number(newest) - week_number(first) + 1
        if weeks + 1 > closed:
            raise click.UsageError(f"scoring {weeks} weeks takes {weeks + 1} closed ones; the source has {closed}")
        cutoffs = [shift(newest, -back) for back in range(weeks, -1, -1)]
        with open_runner(home, progress, is_verbose()) as runner:
            runner.ingest_before(cutoffs[0])
            runner.refresh(cutoffs)
    warehouse = home.warehouse()
    tables = backtest_tables(warehouse, cutoffs[1:])
    if show_lists:
        tables = {"lists": sample_table(warehouse, newest)} | tables
    sections = {"weeks": cutoffs[1:], "warehouse": str(home.warehouse_path), **tables}
    shown = dict.fromkeys(tables, lambda table: [table])
    answer(sections.items(), shown, closing_lines(warehouse, cutoffs, _tgn()))


@cli.command(short_help="Print a user's newest list.")
@click.argument("user")
@click.option("--week", type=Week(), help="Lists made at the close of this week.  [default: the newest published]")
@json_option
@verbose_option
def top5(user: str, week: str | None) -> None:
    """Print the events that USER is most likely to interact with next, the likeliest first, five by default.

    USER is an id as the log writes it. A USER without interactions, or left out as silent for too long, gets the list
    for new users, as in the published tables; stderr says so, and the exit code is 0.
    """
    from tgn_assets.cli.console import answer
    from tgn_assets.reporting.terminal import top5 as read_list

    try:
        user.encode()
    except UnicodeEncodeError:
        raise click.UsageError(f"{user!a} is no text in UTF-8, and so no id") from None
    if not user.strip():
        raise click.UsageError("USER is empty or blank, and so no id")
    found = read_list(existing_home().warehouse(), user, week)
    who, until, silent = printable(user), found["week"], found["silent_weeks"]
    if not found["list"].rows:
        said = f"week {until} was published with no list for {who}, and with none for new users"
        click.echo(f"{said}: were all events forgotten (`tgn forget`)?", err=True)
    elif found["is_new_user"]:
        click.echo(
            f"{who} has no interaction up to the close of week {until}: this is the list for new users", err=True
        )
    elif silent is not None:
        click.echo(
            f"{who} was left out at the close of week {until}, silent for {silent:,} weeks (TGN_MAX_SILENT_WEEKS): "
            "this is the list for new users",
            err=True,
        )
    answer(found.items(), {"list": lambda table: [table] if table.rows else []})


@cli.command(short_help="Write a week's report as a page.")
@click.option("--week", type=Week(), help="The week to report on.  [default: the newest published]")
@click.option(
    "--out", type=click.Path(dir_okay=False), help="File to write.  [default: reports/<week>.html in TGN_HOME]"
)
@verbose_option
def report(week: str | None, out: str | None) -> None:
    """Write one HTML page about a week, and print its path.

    It compares the week with the one before and with the baselines, and shows where the score was lost, whether the log
    is as usual, what the new lists recommend, and the lists of some users. It needs no network, and can be mailed or
    printed.
    """
    from tgn_assets.ml.connectors.text_file import replace_text
    from tgn_assets.reporting.weekly_page.index import write_index
    from tgn_assets.reporting.weekly_page.page import report_page
    from tgn_assets.reporting.weekly_page.queries import newest_week
    from tgn_assets.reporting.weekly_page.run_times import run_times

    home = existing_home()
    week = week or newest_week(home.warehouse())
    with home.instance() as instance:
        now, before = (run_times(instance, of) for of in (week, shift(week, -1)))
    path = Path(out) if out else home.reports / f"{week}.html"
    source, made = home.source_spec(), datetime.now(UTC)
    page = report_page(home.warehouse(), week, now, before, source=source, made=made, linked=out is None)
    replace_text(path, page)
    if out is None:
        write_index(home.reports, home.warehouse(), source=source, made=made)
    click.echo(path)


@cli.command(short_help="Write lists and metrics to Parquet and PostgreSQL.")
@click.option("--week", type=Week(), help="The week to write.  [default: every week that has lists or metrics]")
@json_option
@verbose_option
def export(week: str | None) -> None:
    """Write lists and metrics as Parquet to the folder or object store TGN_EXPORT_PARQUET, in hive partitions by week,
    and to the PostgreSQL database TGN_EXPORT_POSTGRES.

    With these settings, every weekly run does so for its week; this command is for earlier weeks. A week that was
    exported before is replaced.
    """
    from tgn_assets.assets.exports import record_export
    from tgn_assets.cli.console import answer
    from tgn_assets.ml.export.destinations import DESTINATIONS, export_weeks
    from tgn_assets.ml.export.parquet import exportable_weeks

    home = existing_home()
    locations = home.settings.export_locations()
    if not locations:
        variables = " or ".join(f"TGN_EXPORT_{name.upper()}" for name in DESTINATIONS)
        raise click.ClickException(f"there is nowhere to export to; set {variables}")
    with home.warehouse().reader() as con:
        exportable = exportable_weeks(con)
    if not exportable or (week and week not in exportable):
        which, more = (f"in week {week}", f" --week {week}") if week else ("yet", "")
        raise click.ClickException(f"nothing was published {which}; run `tgn refresh{more}`")
    weeks, written = [week] if week else exportable, []
    for name, location in locations.items():
        done = partial(record_export, home.warehouse(), name, location)
        rows = export_weeks(DESTINATIONS[name], home.warehouse().reader, location, weeks, done=done)
        for table, count in rows.items():
            where = DESTINATIONS[name].table_location.format(location=safe_text(location), table=table)
            written.append({"destination": name, "table": table, "rows": count, "place": where})
    lines = [f"{of['rows']:>9,} rows  {of['place']}" for of in written]
    answer({"weeks": weeks, "tables": written}.items(), {"tables": lambda _: lines})


@cli.command(short_help="Print what was understood of the log, before training.")
@json_option
@verbose_option
def check() -> None:
    """Print what was understood of the log TGN_SOURCE, before anything is trained on it, and change nothing.

    It counts rows, users, events and weeks, and the rows that cannot be used, by reason and with an example each, and
    names ids that look odd.
    """
    from tgn_assets.cli.check import SHOWN, check_sections
    from tgn_assets.cli.console import answer

    answer(check_sections(named_home()), SHOWN)


@cli.command(short_help="Print what is published, what failed, and what is left to do.")
@json_option
@verbose_option
def status() -> None:
    """Print what is published, the last score, the rows that were not used, what failed, and what is left to do."""
    from tgn_assets.cli.console import answer
    from tgn_assets.cli.status import SHOWN, status_sections

    answer(status_sections(named_home()), SHOWN)


@cli.command(short_help="Check the files of a home: what is wrong, what makes it again.")
@json_option
@verbose_option
def doctor() -> None:
    """Check all files of TGN_HOME and say what is wrong, what can be made again, and how: one line each.

    It reads every table, artifact and SQLite file, and writes nothing. Exit code 1 if something must be done. For what
    is published and pending, see `tgn status`.
    """
    from tgn_assets.cli.console import answer
    from tgn_assets.cli.doctor import SHOWN, findings

    home = named_home()
    found = list(dict.fromkeys(findings(home)))
    to_do = sum(finding.to_do for finding in found)
    answer({"home": str(home.root), "findings": found, "to_do": to_do}.items(), SHOWN)
    click.get_current_context().exit(1 if to_do else 0)


for command in (models, dev, serve, forget):
    cli.add_command(command)


def _tgn() -> str:
    """The command that runs this program: `tgn` need not be on the path."""
    program = sys.argv[0]
    return program if os.path.basename(program) == "tgn" and not which("tgn") else "tgn"


def _this_week() -> str:
    return week_of(datetime.now(UTC))


def _closed_week(home: "Home", week: str | None) -> str:
    """`week` if it can be run; None stands for the newest closed one where none has closed yet."""
    first, end = home.start_week(), home.settings.end_week
    if week is None:
        source = f"TGN_SOURCE={safe_text(home.settings.source)}" + (f" up to TGN_END_WEEK={end}" if end else "")
        raise click.ClickException(
            f"no week has closed yet: {source} has no row on the Sunday of week {first}, or later; "
            "`tgn check` says which rows were understood"
        )
    if week < first:
        raise click.UsageError(f"--week {week} lies before the first week, {first} (TGN_START_WEEK)")
    if week >= _this_week() or (end and week > end):
        raise click.UsageError(
            f"--week {week} has not closed yet" if not end else f"--week {week} lies after TGN_END_WEEK={end}"
        )
    return week


def main() -> None:
    """The program `tgn`: runs a command and ends the process with its exit code."""
    _open_closed_streams()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what ends a command is to be said
    prepare_process()
    # Importing Dagster and torch makes millions of objects, none of them garbage: collect less often.
    gc.set_threshold(OBJECTS_PER_COLLECTION)
    code = 0
    try:
        cli(prog_name="tgn")
    except SystemExit as end:
        code = int(end.code or 0)
    except OSError as error:  # while help or a version was printed
        code = _unwritten(error)
    try:
        sys.stdout.flush()
    except OSError as error:
        code = code or _unwritten(error)
    with suppress(OSError):
        sys.stderr.flush()
    # Everything is closed by now. With torch loaded, an ordinary exit takes a while, and DuckDB's binding prints a page
    # about its own references.
    os._exit(code)


def _unwritten(error: OSError) -> int:
    """The exit code after what was printed could not be written, which one line says unless the reader has gone."""
    if isinstance(error, BrokenPipeError):
        return 0
    with suppress(OSError):
        click.echo(f"Error: the output cannot be written: {error.strerror}", err=True)
    return 1


def _open_closed_streams() -> None:
    """Lets what is printed to a closed stdout or stderr vanish: a file opened later must not take its place."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115 (as long as the process lives)


if __name__ == "__main__":
    main()
