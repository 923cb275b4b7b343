"""Small logs whose measures are known by hand."""

from collections.abc import Iterable

import duckdb
import pandas as pd
import pytest

from tgn_assets.ml.monitoring.drift import FLOORS, drift, measures, read_measures
from tgn_assets.ml.schema import create_tables
from tgn_assets.ml.weeks import shift

WEEKS = [shift("2024-01-01", i) for i in range(8)]
Row = tuple[str, str, str]
"""user, event, week"""


def steady(weeks: Iterable[str]) -> list[Row]:
    """Four users on four events, one user new each week; the events come back every week."""
    return [(f"u{i}" if i < 3 else f"new {week}", f"e{i}", week) for week in weeks for i in range(4)]


def warehouse(rows: list[Row]) -> duckdb.DuckDBPyConnection:
    con = duckdb.connect()
    create_tables(con)
    for user, event, week in rows:
        con.execute("INSERT INTO raw_interactions VALUES (?, ?, ?::TIMESTAMP, ?)", [user, event, week, week])
    con.execute(
        "INSERT INTO users SELECT user_id, row_number() OVER (), min(week) FROM raw_interactions GROUP BY user_id"
    )
    return con


def drifted(rows: list[Row], week: str = WEEKS[-1]) -> set[str]:
    return {found.measure for found in drift(read_measures(warehouse(rows), week)) if found.drifted}


def test_drift_measures_by_hand() -> None:
    sizes = pd.DataFrame({"week": WEEKS[:2], "interactions": [4, 8], "users": [2, 5], "new_users": [2, 1]})
    # x keeps half of the interactions, y goes from one half to one quarter, z gets the other one.
    counts = pd.DataFrame(
        [(WEEKS[0], "x", 2), (WEEKS[0], "y", 2), (WEEKS[1], "x", 4), (WEEKS[1], "y", 2), (WEEKS[1], "z", 2)],
        columns=["week", "event_id", "interactions"],
    )
    first, second = measures(sizes, counts, WEEKS[1]).to_dict("records")
    assert (first["volume"], first["new_user_share"]) == (4, 1)
    assert pd.isna(first["event_turnover"]) and pd.isna(first["popularity_shift"])
    assert second == {
        "volume": 8,
        "new_user_share": 0.2,
        "event_turnover": pytest.approx(1 / 3),
        "popularity_shift": pytest.approx(0.25),
    }


def test_steady_log_does_not_drift() -> None:
    found = drift(read_measures(warehouse(steady(WEEKS)), WEEKS[-1]))
    assert {item.measure: item.z for item in found} == dict.fromkeys(FLOORS, 0.0)


@pytest.mark.parametrize(
    ("last_week", "what"),
    [
        (steady(WEEKS[-1:]) * 4, {"volume"}),
        ([("u0", "e0", WEEKS[-1])] * 4, {"new_user_share", "popularity_shift"}),
        (
            [(user, f"other {event}", week) for user, event, week in steady(WEEKS[-1:])],
            {"event_turnover", "popularity_shift"},
        ),
        ([], {"volume"}),
    ],
)
def test_only_the_changed_measure_drifts(last_week: list[Row], what: set[str]) -> None:
    assert drifted(steady(WEEKS[:-1]) + last_week) == what


def test_volume_drifts_from_2_7_times_the_usual() -> None:
    # 1 + n against 1 + 99: 4 standard deviations of 0.25 are a factor of e, 271.8.
    volume = pd.DataFrame({name: [4.0] * 8 for name in FLOORS}, index=WEEKS)
    assert [item.z for item in drift(volume.assign(volume=[99.0] * 7 + [270.0])) if item.drifted] == []
    assert [item.measure for item in drift(volume.assign(volume=[99.0] * 7 + [271.0])) if item.drifted] == ["volume"]


def test_restless_log_may_change_more() -> None:
    table = pd.DataFrame({name: [0.5] * 8 for name in FLOORS}, index=WEEKS)
    restless = table.assign(event_turnover=[0.1, 0.9, 0.2, 0.8, 0.3, 0.7, 0.4, 1.0])
    assert not any(item.drifted for item in drift(restless))
    assert any(item.drifted for item in drift(table.assign(event_turnover=[0.5] * 7 + [1.0])))


def test_young_log_has_no_drift() -> None:
    assert drift(read_measures(warehouse(steady(WEEKS[:4])), WEEKS[3])) == []
    assert drift(read_measures(warehouse([]), WEEKS[0])) == []


def test_drift_reads_only_the_trailing_weeks() -> None:
    con = warehouse(steady(WEEKS) + [("u0", f"late {i}", shift(WEEKS[-1], 1)) for i in range(99)])
    pd.testing.assert_frame_equal(read_measures(con, WEEKS[-1]), read_measures(warehouse(steady(WEEKS)), WEEKS[-1]))
    long = [shift(WEEKS[-1], -i) for i in range(30)]
    assert list(read_measures(warehouse(steady(long)), WEEKS[-1]).index) == sorted(long)[-13:]
    # The oldest week is compared to the one before it.
    assert read_measures(warehouse(steady(long)), WEEKS[-1]).notna().all(axis=None)


def test_drift_message() -> None:
    found = drift(read_measures(warehouse(steady(WEEKS[:-1]) + steady(WEEKS[-1:]) * 3), WEEKS[-1]))
    assert str(found[0]) == "volume 12, usually 4 (robust z +3.8)"
