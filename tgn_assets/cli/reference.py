"""docs/reference.md, made from the code: settings, tables, command line, what training may vary.

`python -m tgn_assets.cli.reference` prints it; `make reference` writes it.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from tgn_assets.cli.main import cli
from tgn_assets.ml.config import GNNConfig, RankerConfig
from tgn_assets.ml.schema import TABLES, VIEWS
from tgn_assets.settings import PREFIX, Settings

WIDTH = 100


def reference() -> str:
    """The page, as Markdown."""
    return "\n".join([*_opening(), *_settings(), *_tables(), *_commands(), *_training()]) + "\n"


def _opening() -> Iterator[str]:
    yield "# Reference"
    yield ""
    yield "Made from the code by `make reference`; a test fails when it is out of date."


def _settings() -> Iterator[str]:
    yield from ("", "## Settings", "", "From the environment, or from a file `.env`; an empty variable is not set.", "")
    rows = ((f"`{PREFIX}{name.upper()}`", _default(of), of.description) for name, of in Settings.model_fields.items())
    yield from _table(["variable", "default", "meaning"], rows)


def _tables() -> Iterator[str]:
    yield from ("", "## Tables", "", "In `TGN_HOME/warehouse.duckdb` (DuckDB; times in UTC).")
    for name, table in TABLES.items():
        yield from ("", f"### {name}", "", table.meaning, "")
        rows = ((f"`{column.name}`", column.type, column.meaning) for column in table.columns)
        yield from _table(["column", "type", "meaning"], rows)
    for name, view in VIEWS.items():
        yield from ("", f"### {name}", "", f"A view. {view.meaning}", "", "```sql", view.query, "```")


def _commands() -> Iterator[str]:
    yield from ("", "## Command line")
    context = click.Context(cli, info_name="tgn", terminal_width=WIDTH, **cli.context_settings)
    yield from _command(context)


def _command(context: click.Context) -> Iterator[str]:
    yield from ("", f"### {context.command_path}", "", "```text", context.command.get_help(context).rstrip(), "```")
    if isinstance(context.command, click.Group):
        for name in context.command.list_commands(context):
            verb = context.command.commands[name]
            yield from _command(click.Context(verb, parent=context, info_name=name, terminal_width=WIDTH))


def _training() -> Iterator[str]:
    yield from ("", "## What training may vary", "", "Fields of the launchpad, and of `ops` in a run's configuration.")
    configs: dict[str, type[BaseModel]] = {"trained_gnn": GNNConfig, "trained_ranker": RankerConfig}
    for asset, config in configs.items():
        yield from ("", f"### {asset}", "")
        yield from _table(["field", "default", "meaning"], _fields(config))


def _fields(config: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str, str | None]]:
    """A row per field; those of nested configurations under dotted names."""
    for name, field in config.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _fields(field.annotation, f"{prefix}{name}.")
        else:
            yield f"`{prefix}{name}`", _default(field), field.description


def _default(field: FieldInfo) -> str:
    return "none" if field.default is None else f"`{field.default}`"


def _table(head: list[str], rows: Iterable[Iterable[Any]]) -> Iterator[str]:
    for row in (head, ["---"] * len(head), *rows):
        yield "| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |"


if __name__ == "__main__":
    print(reference(), end="")
