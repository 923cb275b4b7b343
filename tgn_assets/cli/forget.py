"""`tgn forget`: users or events who are to leave no trace, and the search for what is left of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from tgn_assets.cli.base import existing_home, is_json, json_option, verbose_option
from tgn_assets.ml.safe_text import printable

if TYPE_CHECKING:
    from tgn_assets.cli.console import Shown
    from tgn_assets.forget.verify import Trace
    from tgn_assets.state.home import Home

SHOWN_TRACES = 50
"""Finds that are printed; `--json` has all."""
SHORT_IDS = "note       a short id, or a plain word, counts as a whole value or between quotes or tags, not in a text"
UNSET = "named another place when weeks were exported: set it to that, and run this again, to have it cleaned, too"
ALIKE_SQL = """
    SELECT {kind}_id FROM {kind}s, (SELECT unnest($names::VARCHAR[]) AS name)
    WHERE {kind}_id <> '' AND {kind}_id <> name AND NOT list_contains($names, {kind}_id)
      AND lower(trim(nfc_normalize({kind}_id))) = lower(trim(nfc_normalize(name)))
    ORDER BY 1 LIMIT 10
"""


@click.command(short_help="Take users or events out of everything, for good; or prove that they are.")
@click.argument("ids", nargs=-1)
@click.option("--event", is_flag=True, help="The ids are of events, not of users.")
@click.option(
    "--from",
    "file",
    type=click.File(encoding="utf-8-sig"),
    help="Read more ids from this file, one a line; - is stdin.",
)
@click.option("--verify", is_flag=True, help="Change nothing: search every byte of the home and its exports for them.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@verbose_option
def forget(ids: tuple[str, ...], event: bool, file: Any, verify: bool, yes: bool) -> None:
    """Take the users IDS out of TGN_HOME and its exports, and keep them out of every later ingest.

    IDS are ids as the log writes them. Their rows, lists, vectors, examples in reports and mentions in Dagster's
    history go; nothing is published again, and no week becomes pending. The source is not touched. If it is
    interrupted, run it again with the same ids.

    In the end, and with --verify alone, everything is searched for them; exit code 1 if something is left. Ids on a
    command line stay in the shell's history: --from - reads them from stdin.
    """
    from tgn_assets.cli.console import answer
    from tgn_assets.forget.erase import forget as forget_ids
    from tgn_assets.ml.schema import EVENT, USER
    from tgn_assets.ml.sources.relations import id_of

    given = [*ids, *(line.strip("\r\n") for line in file or ())]
    names = list(dict.fromkeys(id_of(name) for name in given if name.strip()))
    if not names:
        raise click.UsageError("which ids? Name them, or give a file of them to --from")
    home, kind = existing_home(), EVENT if event else USER
    if not verify:
        _say(_known(home, kind, names))
        if not yes:
            click.confirm(f"Forget {_several(names, kind)} for good?", abort=True, err=True)
        forget_ids(home, kind, names, lambda text: _say([text]))
    sections = _search(home, kind, names)
    answer(sections.items(), shown())
    click.get_current_context().exit(1 if sections["left"] else 0)


def _say(lines: Sequence[str]) -> None:
    with suppress(BrokenPipeError):  # it goes on though nobody reads it
        for line in lines:
            click.echo(printable(line), err=is_json())


def _several(names: Sequence[str], kind: str) -> str:
    return f"{kind} {printable(repr(names[0]))}" if len(names) == 1 else f"{len(names):,} {kind}s"


def _known(home: Home, kind: str, names: Sequence[str]) -> list[str]:
    """What the warehouse has of them, and ids that are written nearly the same."""
    from tgn_assets.forget.tables import count_rows

    if not home.warehouse_path.exists():
        return [f"known      nothing: no week was ingested yet; {_several(names, kind)} will be left out"]
    with home.warehouse().reader() as con:
        known, rows, listed = count_rows(con, kind, names)
        alike = [name for (name,) in con.execute(ALIKE_SQL.format(kind=kind), {"names": list(names)}).fetchall()]
    found = f"known      {known:,} of {len(names):,} {kind}s, with {rows:,} rows and {listed:,} places in lists"
    said = ", ".join(map(ascii, alike))
    return [found, *([f"note       other {kind}s differ in case, blanks or Unicode form: {said}"] if alike else [])]


def _search(home: Home, kind: str, names: Sequence[str]) -> dict[str, Any]:
    """The sections of the answer of a search."""
    from tgn_assets.forget.exported import unset_locations
    from tgn_assets.forget.spelling import Ids, is_distinctive
    from tgn_assets.forget.verify import traces
    from tgn_assets.state.warehouse import StateError

    searched, locations = Counter[str](), home.settings.export_locations()
    unset: list[str] = []
    with suppress(StateError):  # a damaged warehouse is a find
        unset = unset_locations(home.warehouse().lineage(), locations)
    found = list(traces(home, kind, Ids(names), searched))
    return {
        "home": str(home.root),
        "files": searched["files"],
        "bytes": searched["bytes"],
        "exports": list(locations),
        "unset_exports": unset,
        "short_ids": sum(not is_distinctive(name) for name in names),
        "traces": found,
        "left": sum(trace.sure for trace in found),
    }


def _traces(found: Sequence[Trace]) -> Iterator[str]:
    for trace in sorted(found, key=lambda trace: not trace.sure)[:SHOWN_TRACES]:
        yield f"{'found' if trace.sure else 'by chance?':10} {trace.place}: {trace.what}"
    if len(found) > SHOWN_TRACES:
        yield f"           and {len(found) - SHOWN_TRACES:,} more; --json has them"


def shown() -> Shown:
    """How the sections of the answer are shown."""
    return {
        "files": lambda number: [f"searched   {number:,} files, as text and as what their formats hold"],
        "exports": lambda names: [f"           exports: {', '.join(names) or 'none are set'}"],
        "unset_exports": lambda names: [f"not there  {name} {UNSET}" for name in names],
        "short_ids": lambda number: [SHORT_IDS] * bool(number),
        "traces": _traces,
        "left": lambda number: [f"left       {number} places name them" if number else "left       nothing"],
    }
