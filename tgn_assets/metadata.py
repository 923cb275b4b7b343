"""What a materialization shows in the UI: numbers that are plotted per week, small tables, loss curves, columns."""

import base64
import io
from collections.abc import Mapping, Sequence
from math import isfinite
from numbers import Integral, Real
from typing import Any

import dagster as dg
import pandas as pd

from tgn_assets.ml.schema import TABLES


def table_definition(table: str) -> dict[str, Any]:
    """Name and columns of a table of the warehouse, for an asset's definition."""
    columns = [_column(column) for column in TABLES[table].split(", ")]
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


def curve_plot(
    curve: Sequence[Mapping[str, Any]], panels: Sequence[Sequence[str]], steps: str
) -> dict[str, dg.MetadataValue]:
    """The values named in `panels` over the entries of `curve`, side by side in a small picture."""
    if not curve:
        return {}
    # The object-oriented interface: pyplot would keep every figure for as long as the code server lives.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(panels), 2.4), dpi=72)
    FigureCanvasAgg(figure)
    figure.subplots_adjust(left=0.14 / len(panels), right=0.98, bottom=0.2, top=0.96)
    for axes, lines in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for line in lines:
            values = [float("nan") if entry.get(line) is None else entry[line] for entry in curve]
            axes.plot(range(1, len(curve) + 1), values, marker=".", label=line.replace("_", " "))
        axes.set_xlabel(steps)
        axes.legend(frameon=False)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    encoded = base64.b64encode(picture.getvalue()).decode()
    return {"curve": dg.MetadataValue.md(f"![training curve](data:image/png;base64,{encoded})")}


def last_values(curve: Sequence[Mapping[str, Any]], *names: str) -> dict[str, Any]:
    """The newest value under each of `names` that is there; an entry of a curve need not have all of them."""
    return {name: entry[name] for entry in curve for name in names if entry.get(name) is not None}


def _column(definition: str) -> dg.TableColumn:
    name, dtype, *rest = definition.split(" ")
    constraints = dg.TableColumnConstraints(nullable=not rest, unique="UNIQUE" in rest or "PRIMARY" in rest)
    return dg.TableColumn(name, dtype, constraints=constraints)


def _cell(value: Any) -> str:
    if pd.isna(value):
        return ""
    if isinstance(value, pd.Timestamp) and value == value.normalize():
        value = value.date()
    text = " ".join((f"{value:.4g}" if isinstance(value, float) else str(value)).split())
    text = text if len(text) <= 60 else text[:57] + "..."
    return "".join(f"\\{sign}" if sign in r"\`*_[]<>|#!" else sign for sign in text)
