"""A warehouse of four weeks with lists and scores, small enough to check a report of it by eye."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

import pandas as pd

from tgn_assets.ml.sources.spec import SourceSpec
from tgn_assets.reporting.weekly_page.page import report_page
from tgn_assets.state.warehouse import Warehouse

WEEKS = ["2024-01-01", "2024-01-08", "2024-01-15", "2024-01-22"]
HOSTILE = "<script>alert(1)</script>"
LOG = SourceSpec("https://ann:s3cret@shop.example/log.csv?signature=s3cret")
MADE = datetime(2024, 1, 29, 6, 5, tzinfo=UTC)
TIMES = MappingProxyType({"trained_ranker": 72.4})
SCORES = {"2024-01-15": (0.30, 0.25), "2024-01-22": (0.50, 0.30)}


def warehouse(folder: Path) -> Warehouse:
    """In every week ann meets `a` and bob `HOSTILE`; lists were made in the last three, and scored in the last two.

    The first week has a rejected row, the last one two, and one row belongs to no week.
    """
    filled = Warehouse(folder / "warehouse.duckdb")
    with filled.writer() as con:
        for week in WEEKS:
            con.execute("INSERT INTO ingested_weeks VALUES (?, 2, '2-0')", [week])
            for user, event in (("ann", "a"), ("bob", HOSTILE)):
                con.execute("INSERT INTO raw_interactions VALUES (?, ?, ?::DATE, ?)", [user, event, week, week])
        for rejected in (WEEKS[0], WEEKS[-1], WEEKS[-1]):
            con.execute("INSERT INTO rejected_interactions VALUES (?, 'missing_user', NULL, 'a', NULL)", [rejected])
        con.execute("INSERT INTO rejected_interactions VALUES (NULL, 'unreadable_time', 'ann', 'a', 'soon')")
        for week in WEEKS[1:]:
            newest = week == WEEKS[-1]
            for user, event in (("ann", "b" if newest else "a"), ("bob", HOSTILE)):
                con.execute(
                    "INSERT INTO weekly_top5_predictions BY NAME SELECT ?::DATE AS week, ?::DATE + 7 AS target_week, "
                    "? AS user_id, 1 AS rank, ? AS event_id, 0.5 AS score, 'tgn_assets' AS source",
                    [week, week, user, event],
                )
            con.execute(
                "INSERT INTO new_user_top5_predictions BY NAME SELECT ?::DATE AS week, ?::DATE + 7 AS target_week, "
                "1 AS rank, 'a' AS event_id, 0.1 AS score, 'popular' AS source",
                [week, week],
            )
    for week, (ours, repeat) in SCORES.items():
        filled.replace_week_tables(week, {"eval_metrics": metrics(week, ours, repeat)})
    return filled


def page_of(
    filled: Warehouse, week: str = WEEKS[-1], times: Mapping[str, float] = TIMES, source: SourceSpec = LOG
) -> str:
    """The report of `week`."""
    return report_page(filled, week, times, {}, source=source, made=MADE)


def metrics(week: str, ours: float, repeat: float) -> pd.DataFrame:
    """What `eval_metrics` holds of 100 users of whom `ours` and `repeat` is the NDCG, each give or take 0.02."""
    rows = [(name, "all", "ndcg", value) for name, value in (("tgn_assets", ours), ("repeat", repeat))]
    rows += [("repeat", "all", "ndcg_lift", ours - repeat)]
    frame = pd.DataFrame(rows, columns=["model", "segment", "metric", "value"])
    return frame.assign(week=week, ci_low=frame.value - 0.02, ci_high=frame.value + 0.02, users=100)
