"""What a materialization shows in the UI: numbers that are plotted per week, small tables, loss curves, columns."""

import base64
import io
from collections.abc import Mapping, Sequence
from math import isfinite
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import dagster as dg
import numpy as np
import pandas as pd

from tgn_assets.ml.dictionary import COLUMN_MEANING
from tgn_assets.ml.schema import OURS, TABLES
from tgn_assets.ml.side_tables import SideTables

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def table_definition(table: str) -> dict[str, Any]:
    """Name and columns of a table of the warehouse, for an asset's definition."""
    columns = [_column(table, column) for column in TABLES[table].split(", ")]
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


def side_columns(side: SideTables, users: np.ndarray, events: np.ndarray, week: str) -> dict[str, Any]:
    """What side tables gave the model: columns with the share of nodes they are known of, coverage, and what to know
    of the files; nothing without tables. `users` and `events` are the nodes known when `week` closes."""
    shown: dict[str, Any] = {"side_notes": "\n".join(side.notes)} if side.notes else {}
    if side.columns:
        shown["side_columns"] = preview(side.coverage(users, events, week), rows=len(side.columns))
    both = {"events": (side.event, events), "users": (side.user, users)}
    covered = {name: table.covered(idx) for name, (table, idx) in both.items() if table.columns}
    return shown | numbers(covered, "side_coverage/")


def curve_plot(
    curve: Sequence[Mapping[str, Any]], panels: Sequence[Sequence[str]], steps: str
) -> dict[str, dg.MetadataValue]:
    """The values named in `panels` over the entries of `curve`, side by side in a small picture, if there are two."""
    if len(curve) < 2:
        return {}
    figure = _figure(len(panels))
    for axes, lines in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for line in lines:
            values = [float("nan") if entry.get(line) is None else entry[line] for entry in curve]
            axes.plot(range(1, len(curve) + 1), values, marker=".", label=line.replace("_", " "))
        axes.set_xlabel(steps)
        axes.legend(frameon=False)
    return {"curve": _picture(figure, "training curve")}


def activity_plot(weeks: pd.DataFrame) -> dict[str, dg.MetadataValue]:
    """Interactions, users and events (columns) over the weeks, each in a panel from zero."""
    if weeks.empty:
        return {}
    names = ["interactions", "users", "events"]
    figure = _figure(len(names))
    for axes, name in zip(figure.subplots(1, len(names)), names, strict=True):
        axes.plot(weeks["week"], weeks[name], marker=".")
        axes.set_ylim(bottom=0)
        axes.set_title(name, fontsize="medium")
        _few_dates(axes)
    figure.subplots_adjust(top=0.88, wspace=0.3)
    return {"activity": _picture(figure, "interactions, users and events per week")}


def quality_plot(scores: pd.DataFrame) -> dict[str, dg.MetadataValue]:
    """NDCG@5 over the weeks, a line for each model with its 95% intervals; ours is the thick one."""
    if scores.empty:
        return {}
    figure = _figure(2)
    axes = figure.subplots()
    for model, of_model in scores.groupby("model"):
        ours = model == OURS
        (line,) = axes.plot(
            of_model["week"], of_model["value"], marker=".", label=model, linewidth=2.5 if ours else 1, zorder=2 + ours
        )
        axes.vlines(of_model["week"], of_model["ci_low"], of_model["ci_high"], colors=line.get_color(), alpha=0.4)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("NDCG")
    _few_dates(axes)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.subplots_adjust(right=0.72)
    return {"quality": _picture(figure, "NDCG of ours and the baselines by week")}


def catalogue_plot(favourites: pd.DataFrame, weeks: pd.DataFrame) -> dict[str, dg.MetadataValue]:
    """The events on the most lists (event_id, lists), and by week the share of known events that is on any list."""
    if favourites.empty:
        return {}
    figure = _figure(2)
    bars, line = figure.subplots(1, 2)
    names = [_short(event) for event in favourites["event_id"]]
    bars.barh(range(len(names)), favourites["lists"])
    bars.set_yticks(range(len(names)), names, fontsize="x-small", parse_math=False)
    bars.invert_yaxis()
    bars.set_title("on the most users' lists", fontsize="medium")
    line.plot(weeks["week"], weeks["recommended"] / weeks["known"], marker=".")
    line.set_ylim(bottom=0)
    line.set_title("share of known events on some list", fontsize="medium")
    _few_dates(line)
    figure.subplots_adjust(left=0.18, top=0.88, wspace=0.25)
    return {"catalogue": _picture(figure, "most recommended events, and catalogue coverage by week")}


def reliability_plot(points: Sequence[tuple[float, float]]) -> dict[str, dg.MetadataValue]:
    """Observed frequency over mean score, both logarithmic, beside the diagonal on which scores are probabilities."""
    shown = [(predicted, observed) for predicted, observed in points if predicted > 0 and observed > 0]
    if not shown:
        return {}
    figure = _figure(1)
    axes = figure.subplots()
    ends = [min(min(point) for point in shown), max(max(point) for point in shown)]
    axes.loglog(ends, ends, color="grey", linewidth=1)
    axes.loglog(*zip(*shown, strict=True), marker="o")
    axes.set_xlabel("mean score")
    axes.set_ylabel("share that was touched")
    return {"reliability": _picture(figure, "reliability of the scores")}


def _figure(panels: int) -> "Figure":
    # The object-oriented interface: pyplot would keep every figure for as long as the code server lives.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * panels, 2.4), dpi=72)
    FigureCanvasAgg(figure)
    figure.subplots_adjust(left=0.14 / panels, right=0.98, bottom=0.2, top=0.96)
    return figure


def _few_dates(axes: "Axes") -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    first, last = axes.dataLim.intervalx
    if last - first < 14:  # days; around a single week, matplotlib would show four years
        axes.set_xlim(first - 7, last + 7)
    dates = AutoDateLocator(minticks=2, maxticks=5)
    axes.xaxis.set_major_locator(dates)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(dates))


def _picture(figure: "Figure", text: str) -> dg.MetadataValue:
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    encoded = base64.b64encode(picture.getvalue()).decode()
    return dg.MetadataValue.md(f"![{text}](data:image/png;base64,{encoded})")


def last_values(curve: Sequence[Mapping[str, Any]], *names: str) -> dict[str, Any]:
    """The newest value under each of `names` that is there; an entry of a curve need not have all of them."""
    return {name: entry[name] for entry in curve for name in names if entry.get(name) is not None}


def _column(table: str, definition: str) -> dg.TableColumn:
    name, dtype, *rest = definition.split(" ")
    constraints = dg.TableColumnConstraints(nullable=not rest, unique="PRIMARY" in rest)
    return dg.TableColumn(name, dtype, COLUMN_MEANING[table][name], constraints)


def _short(text: str, length: int = 18) -> str:
    """`text` from the data on one line, with only signs that a font has."""
    shown = "".join(sign if sign.isprintable() else "?" for sign in text)
    return shown if len(shown) <= length else shown[: length - 3] + "..."


def _cell(value: Any) -> str:
    if pd.isna(value):
        return ""
    if isinstance(value, pd.Timestamp) and value == value.normalize():
        value = value.date()
    text = " ".join((f"{value:.4g}" if isinstance(value, float) else str(value)).split())
    text = text if len(text) <= 60 else text[:57] + "..."
    return "".join(f"\\{sign}" if sign in r"\`*_[]<>|#!" else sign for sign in text)
