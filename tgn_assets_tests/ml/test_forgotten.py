"""The list of forgotten ids, and the rows that an ingest leaves out for it."""

import errno
from pathlib import Path

import duckdb
import pytest

from tgn_assets.ml.data.ingest import load_weeks
from tgn_assets.ml.forgotten import ForgottenIds, ForgottenListError
from tgn_assets.ml.schema import EVENT, USER, create_tables
from tgn_assets.ml.sources.extent import describe_source, source_digests, source_signature
from tgn_assets.ml.sources.spec import SourceError, SourceSpec

WEEK = "2024-01-01"
LOG = """user,event,time
17.0,a,2024-01-01 10:00:00
ann,a,2024-01-02 10:00:00
ann,b,soon
bob,17,2024-01-03 10:00:00
bob,c,ann
Ann,a,2024-01-07 10:00:00
ann,a,2024-01-14 10:00:00
"""


@pytest.fixture
def spec(tmp_path: Path) -> SourceSpec:
    (tmp_path / "log.csv").write_text(LOG)
    return SourceSpec(str(tmp_path / "log.csv"), "user", "event", "time", forgotten=tmp_path / "forgotten.json")


def forget(spec: SourceSpec, kind: str, *names: str) -> ForgottenIds:
    assert spec.forgotten
    listed = ForgottenIds.load(spec.forgotten).adding(kind, names)
    spec.forgotten.write_text(listed.to_json())
    return listed


def loaded(spec: SourceSpec) -> duckdb.DuckDBPyConnection:
    con = duckdb.connect()
    create_tables(con)
    report = load_weeks(con, spec, [WEEK], start_week=WEEK, end_week=None)
    con.execute("CREATE TABLE left_out AS SELECT ? AS rows", [report.forgotten])
    assert report.digests == source_digests(spec, [WEEK])
    return con


def test_rows_of_forgotten_ids_are_left_out_and_counted(spec: SourceSpec) -> None:
    forget(spec, USER, "ann", "17")
    con = loaded(spec)
    assert con.execute("SELECT user_id, event_id FROM raw_interactions ORDER BY ALL").fetchall() == [
        ("Ann", "a"),
        ("bob", "17"),
    ]
    assert con.execute("SELECT reason, user_id, event_id, ts FROM rejected_interactions").fetchall() == [
        ("unreadable_time", "bob", "c", None)
    ]
    assert con.execute("FROM left_out").fetchall() == [(3,)]


def test_a_user_and_an_event_of_one_name_are_two(spec: SourceSpec) -> None:
    forget(spec, EVENT, "17")
    con = loaded(spec)
    assert con.execute("SELECT user_id FROM raw_interactions ORDER BY ALL").fetchall() == [("17",), ("Ann",), ("ann",)]


def test_a_row_that_is_left_out_still_closes_its_week(spec: SourceSpec) -> None:
    forget(spec, USER, "ann")
    assert describe_source(spec).closed_by_rows == "2024-01-08"


def test_forgetting_moves_the_signature(spec: SourceSpec) -> None:
    before = source_signature(spec)
    forget(spec, USER, "ann")
    assert source_signature(spec) != before


def test_lines_that_cannot_be_read_are_counted_and_not_kept(spec: SourceSpec) -> None:
    Path(spec.location).write_text(LOG + "ann\n")
    kept = loaded(spec).execute("SELECT user_id FROM rejected_interactions WHERE reason = 'unreadable_line'")
    assert kept.fetchall() == [("ann",)]
    forget(spec, USER, "ann")
    kept = loaded(spec).execute("SELECT user_id FROM rejected_interactions WHERE reason = 'unreadable_line'")
    assert kept.fetchall() == [(None,)]


def test_the_list_names_no_id_and_homes_share_no_hash(spec: SourceSpec, tmp_path: Path) -> None:
    listed = forget(spec, USER, "ann")
    assert spec.forgotten and "ann" not in spec.forgotten.read_text()
    assert ForgottenIds.load(spec.forgotten).to_json() == listed.to_json()
    assert listed.holds(USER, "ann") and not listed.holds(EVENT, "ann")
    assert ForgottenIds.load(tmp_path / "other").hash(USER, "ann") != listed.hash(USER, "ann")


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"key": "k", "users": 3, "events": []}'])
def test_nothing_is_read_beside_a_damaged_list(spec: SourceSpec, text: str) -> None:
    assert spec.forgotten
    spec.forgotten.write_text(text)
    with pytest.raises(SourceError, match=r"forgotten\.json, the list of forgotten ids, cannot be read"):
        loaded(spec)


def test_a_list_that_may_not_be_read_is_not_called_damaged(spec: SourceSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: Path, encoding: str) -> str:  # root may read everything
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    assert spec.forgotten
    spec.forgotten.touch()
    monkeypatch.setattr(Path, "read_text", denied)
    with pytest.raises(ForgottenListError, match=r"forgotten\.json cannot be used: permission denied; give this user"):
        ForgottenIds.load(spec.forgotten)
