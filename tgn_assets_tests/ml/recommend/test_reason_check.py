"""The check of reasons against the log: true ones pass, and each number that is wrong is found."""

import json

import duckdb
import pandas as pd
import pytest

from tgn_assets.ml.data.attributes import AttributeTables
from tgn_assets.ml.recommend.published import read_nodes
from tgn_assets.ml.recommend.reason_check import ReasonCheck, check_reasons
from tgn_assets.ml.recommend.reasons import KINDS
from tgn_assets.ml.weeks import shift
from tgn_assets_tests.ml.recommend.reason_logs import ALL_KINDS, WEEK, categories, publish, reason_log, said

WRONG_TEXT = {"after": "tea", "with": "tea", "column": "colour", "last": "2023-12-31", "first_week": "2023-12-25"}
PARAMETERS = [(kind, name) for kind, of_kind in KINDS.items() for name in of_kind.parameters]


@pytest.fixture
def con() -> duckdb.DuckDBPyConnection:
    return reason_log()


@pytest.fixture
def attributes(con: duckdb.DuckDBPyConnection) -> AttributeTables:
    return categories(con)


@pytest.fixture
def reasons(con: duckdb.DuckDBPyConnection, attributes: AttributeTables) -> pd.DataFrame:
    return said(con, attributes=attributes)


def checked(
    con: duckdb.DuckDBPyConnection, attributes: AttributeTables | None = None, rows: int | None = None
) -> ReasonCheck:
    events = read_nodes(con, WEEK)[1]
    return check_reasons(con, WEEK, rows=rows, attributes=attributes or categories(con), events=events)


def test_all_true_reasons_of_all_kinds_pass(con: duckdb.DuckDBPyConnection, reasons: pd.DataFrame) -> None:
    publish(con, reasons)
    found = checked(con)
    assert found.untrue.empty, found.message
    assert set(found.checked) == ALL_KINDS and sum(found.checked.values()) == len(reasons)
    assert found.message == f"{len(reasons)} reasons are true."


@pytest.mark.parametrize(("kind", "parameter"), PARAMETERS)
def test_wrong_parameter_is_found(
    kind: str, parameter: str, con: duckdb.DuckDBPyConnection, reasons: pd.DataFrame
) -> None:
    def wrong(text: str) -> str:
        stated = json.loads(text)
        value = stated[parameter]
        return json.dumps(stated | {parameter: WRONG_TEXT[parameter] if isinstance(value, str) else value + 1})

    of_kind = reasons[reasons.reason_kind == kind]
    # A repeat of another number of weeks may be true of a longer window, a place in another window as well.
    change = of_kind.assign(reason_parameters=of_kind.reason_parameters.map(wrong))
    publish(con, change)
    untrue = checked(con).untrue
    if parameter == "of" and kind in ("repeat", "popular"):
        assert len(untrue) < len(of_kind)  # one more week holds nothing more
    else:
        assert len(untrue) == len(of_kind)
        assert set(untrue.kind) == {kind} and untrue.found.notna().all()


@pytest.mark.parametrize(
    ("undone", "kinds"),
    [
        ("DELETE FROM raw_interactions WHERE user_id = 'ann' AND event_id = 'tea'", {"repeat", "attributes"}),
        ("DELETE FROM raw_interactions WHERE user_id = 'ann' AND event_id = 'x'", {"next_step"}),
        ("DELETE FROM raw_interactions WHERE user_id = 't0' AND event_id = 'q'", {"together", "learned", "variety"}),
        ("DELETE FROM raw_interactions WHERE user_id = 'bob' AND event_id = 'hit'", {"popular"}),
        ("UPDATE published_weeks SET policy = '{\"min_distinct_events\": 0}'", {"variety"}),
    ],
)
def test_reason_is_untrue_without_its_rows(
    undone: str, kinds: set[str], con: duckdb.DuckDBPyConnection, attributes: AttributeTables, reasons: pd.DataFrame
) -> None:
    publish(con, reasons)
    con.execute(undone)
    assert set(checked(con, attributes).untrue.kind) >= kinds


def test_rows_after_the_week_make_no_reason_true_or_untrue(
    con: duckdb.DuckDBPyConnection, reasons: pd.DataFrame
) -> None:
    publish(con, reasons)
    attributes = categories(con)
    later = shift(WEEK, 1)
    con.execute("INSERT INTO raw_interactions SELECT user_id, event_id, ?, ? FROM raw_interactions", [later, later])
    assert checked(con, attributes).untrue.empty
    future = reasons[reasons.reason_kind == "repeat"].head(1)
    stated = json.loads(future.reason_parameters.item())
    publish(con, future.assign(reason_parameters=json.dumps(stated | {"last": later})))
    assert len(checked(con, attributes).untrue) == 1


def test_lower_bound_may_be_exceeded_but_not_missed(con: duckdb.DuckDBPyConnection, reasons: pd.DataFrame) -> None:
    one = reasons[reasons.reason_kind == "together"].head(1)
    stated = json.loads(one.reason_parameters.item())
    for users, wrong in ((stated["users"] - 1, 0), (stated["users"], 0), (stated["users"] + 1, 1)):
        claimed = json.dumps(stated | {"users": users, "at_least": True})
        publish(con, one.assign(reason_parameters=claimed))
        assert len(checked(con).untrue) == wrong


def test_sample_is_fixed_and_unknown_kinds_fail(con: duckdb.DuckDBPyConnection, reasons: pd.DataFrame) -> None:
    publish(con, reasons.assign(reason_kind="magic"))
    one, other = (checked(con, rows=7) for _ in range(2))
    assert one.checked == other.checked == {"magic": 7}
    pd.testing.assert_frame_equal(one.untrue, other.untrue)
    assert len(one.untrue) == 7 and "7 of 7 reasons are not true" in one.message


def test_lists_of_an_older_release_have_no_reasons_to_check(con: duckdb.DuckDBPyConnection) -> None:
    assert "an older release" in checked(con).message
