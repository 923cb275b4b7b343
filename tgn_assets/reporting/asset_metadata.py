"""What a materialization shows in the UI: numbers that are plotted per week, small tables, columns."""

from collections.abc import Mapping, Sequence
from math import isfinite
from numbers import Integral, Real
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd

from tgn_assets.ml.data.attributes import AttributeTables
from tgn_assets.ml.schema import TABLES


def table_definition(table: str) -> dict[str, Any]:
    """Name and columns of a table of the warehouse, for an asset's definition."""
    columns = [
        dg.TableColumn(
            column.name,
            column.type,
            column.meaning,
            dg.TableColumnConstraints(nullable=column.nullable, unique=column.primary_key),
        )
        for column in TABLES[table].columns
    ]
    return {"dagster/table_name": table, "dagster/column_schema": dg.TableSchema(columns=columns)}


def row_count(rows: int) -> dict[str, dg.MetadataValue]:
    """The number of rows that a partition holds."""
    return {"dagster/partition_row_count": dg.MetadataValue.int(rows)}


def numbers(values: Mapping[str, Any], prefix: str = "") -> dict[str, dg.MetadataValue]:
    """Each value as a number, under `prefix` and its name; what is not a finite number is left out."""
    return {
        prefix + name: dg.MetadataValue.int(int(value))
        if isinstance(value, Integral)
        else dg.MetadataValue.float(float(value))
        for name, value in values.items()
        if isinstance(value, Real) and isfinite(value)
    }


def preview(frame: pd.DataFrame, rows: int = 10) -> dg.MetadataValue:
    """The first rows as a Markdown table; text from the data cannot break out of its cell."""
    head = frame.head(rows)
    lines = [list(map(str, head.columns)), ["---"] * head.shape[1], *(map(_cell, row) for row in head.to_numpy())]
    return dg.MetadataValue.md("\n".join("| " + " | ".join(line) + " |" for line in lines))


def attribute_columns(attributes: AttributeTables, users: np.ndarray, events: np.ndarray, week: str) -> dict[str, Any]:
    """What side tables gave the model: columns with the share of nodes they are known of, coverage, and what to know
    of the files; nothing without tables. `users` and `events` are the nodes known when `week` closes."""
    shown: dict[str, Any] = {"attribute_notes": "\n".join(attributes.notes)} if attributes.notes else {}
    if attributes.columns:
        shown["attribute_columns"] = preview(attributes.coverage(users, events, week), rows=len(attributes.columns))
    both = {"events": (attributes.event, events), "users": (attributes.user, users)}
    covered = {name: table.covered(idx) for name, (table, idx) in both.items() if table.columns}
    return shown | numbers(covered, "attribute_coverage/")


def last_values(curve: Sequence[Mapping[str, Any]], *names: str) -> dict[str, Any]:
    """The newest value under each of `names` that is there; an entry of a curve need not have all of them."""
    return {name: entry[name] for entry in curve for name in names if entry.get(name) is not None}


def _cell(value: Any) -> str:
    if pd.isna(value):
        return ""
    if isinstance(value, pd.Timestamp) and value == value.normalize():
        value = value.date()
    text = " ".join((f"{value:.4g}" if isinstance(value, float) else str(value)).split())
    text = text if len(text) <= 60 else text[:57] + "..."
    return "".join(f"\\{sign}" if sign in r"\`*_[]<>|#!" else sign for sign in text)
