"""The metadata that a materialization shows in the UI: numbers, plotted by week, small tables, columns."""

import json
from collections.abc import Mapping, Sequence
from math import isfinite
from numbers import Integral, Real
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
from numpy.typing import NDArray

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


def numbers(values: Mapping[Any, Any], prefix: str = "") -> dict[str, dg.MetadataValue]:
    """The finite numbers among `values`, each under `prefix` and its name."""
    return {
        f"{prefix}{name}": dg.MetadataValue.int(int(value))
        if isinstance(value, Integral)
        else dg.MetadataValue.float(float(value))
        for name, value in values.items()
        if isinstance(value, Real) and isfinite(value)
    }


def preview(frame: pd.DataFrame, rows: int = 10) -> dg.TableMetadataValue:
    """The first rows as a table."""
    head = frame.head(rows)
    texts = head.select_dtypes(exclude=["number", "bool"]).columns
    head = head.astype(dict.fromkeys(texts, "string"))
    records = json.loads(head.to_json(orient="records", double_precision=4))
    columns = [dg.TableColumn(str(name), str(dtype)) for name, dtype in head.dtypes.items()]
    return dg.MetadataValue.table([dg.TableRecord(record) for record in records], dg.TableSchema(columns))


def attribute_columns(
    attributes: AttributeTables, users: NDArray[np.int64], events: NDArray[np.int64], week: str
) -> dict[str, Any]:
    """The columns of the attribute tables with the share of nodes that have a value, and notes about the files.

    `users` and `events` are the nodes known when `week` closes. Empty without tables.
    """
    shown: dict[str, Any] = {"attribute_notes": "\n".join(attributes.notes)} if attributes.notes else {}
    if attributes.columns:
        shown["attribute_columns"] = preview(attributes.coverage(users, events, week), rows=len(attributes.columns))
    both = {"events": (attributes.event, events), "users": (attributes.user, users)}
    covered = {name: table.covered(idx) for name, (table, idx) in both.items() if table.columns}
    return shown | numbers(covered, "attribute_coverage/")


def last_values(curve: Sequence[Mapping[str, Any]], *names: str) -> dict[str, Any]:
    """The last value of each of `names`; an entry of a curve need not have all of them."""
    return {name: entry[name] for entry in curve for name in names if entry.get(name) is not None}
