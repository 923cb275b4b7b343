import json
import time
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest

from tgn_assets.ml.sources.extent import describe_source, source_digests
from tgn_assets.ml.sources.reader import scan
from tgn_assets.ml.sources.row_filter import check_filter
from tgn_assets.ml.sources.spec import SourceError, SourceSpec
from tgn_assets_tests.support.histories import HEADER, WEEKS, csv, load, parquet, rows, warehouse

LOG = (
    "ip_address,event_id,timestamp,Event Type,c0\n"
    "u1,e1,2024-01-03,click,5\nu2,e1,2024-01-09,view,10\nu1,e2,2024-01-21,click,\n,e9,2024-01-10,view,1\n"
)
CLICKS = "\"event type\" = 'click' -- what was done, not what was shown"


def filtered(spec: SourceSpec, condition: str) -> SourceSpec:
    return SourceSpec(spec.location, row_filter=condition)


def read(spec: SourceSpec) -> list[tuple[str, str]]:
    with warehouse() as con:
        load(con, spec)
        return [(user, event) for user, event, *_ in rows(con, "raw_interactions")]


def test_filtered_rows_are_counted_and_not_rejected(tmp_path: Path) -> None:
    with warehouse() as con:
        report = load(con, filtered(csv(tmp_path, LOG), CLICKS))
        assert rows(con, "rejected_interactions") == []
        assert [row[:2] for row in rows(con, "raw_interactions")] == [("u1", "e1"), ("u1", "e2")]
        assert rows(con, "users") and "u2" not in str(rows(con, "users"))
    assert (report.filtered, report.rejected) == (2, {})


def test_row_filter_works_for_every_format(tmp_path: Path) -> None:
    spec = csv(tmp_path, LOG)
    table = f"FROM read_csv('{spec.location}', all_varchar = true)"
    records = duckdb.execute(table).df().replace({float("nan"): None}).to_dict("records")
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    logs = [spec, parquet(tmp_path, table), SourceSpec(str(tmp_path / "log.jsonl"))]
    digests = [source_digests(filtered(log, CLICKS), WEEKS) for log in logs]
    assert digests[0] == digests[1] == digests[2] != source_digests(spec, WEEKS)


def test_filter_sees_source_columns_with_internal_names(tmp_path: Path) -> None:
    assert read(filtered(csv(tmp_path, LOG), "TRY_CAST(c0 AS INT) > 5")) == [("u2", "e1")]


def test_null_filter_condition_leaves_the_row_out(tmp_path: Path) -> None:
    assert read(filtered(csv(tmp_path, LOG), "c0 <> '5'")) == [("u2", "e1")]


def test_malformed_line_is_rejected_whatever_the_filter(tmp_path: Path) -> None:
    with warehouse() as con:
        assert load(con, filtered(csv(tmp_path, LOG + "u,e\n"), CLICKS)).rejected == {"unreadable_line": 1}


def test_the_first_week_is_that_of_the_rows_that_meet_the_filter(tmp_path: Path) -> None:
    assert describe_source(filtered(csv(tmp_path, LOG), "event_id = 'e2'")).first_week == "2024-01-15"


def test_a_synthetic_source_can_be_filtered(tmp_path: Path) -> None:
    everything = SourceSpec("synthetic", start_week=WEEKS[0])
    (user, _), *_ = read(everything)
    only = SourceSpec("synthetic", start_week=WEEKS[0], row_filter=f"user_id = '{user}'")
    assert {found for found, _ in read(only)} == {user}


def test_a_filter_that_no_row_meets_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"none of the 4 rows .* meets TGN_ROW_FILTER=false"):
        describe_source(filtered(csv(tmp_path, LOG), "false"))


def test_an_unknown_column_is_an_error_that_lists_the_columns(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"TGN_ROW_FILTER=kind = 'x' names 'kind', .*'ip_address', .*'Event Type'"):
        describe_source(filtered(csv(tmp_path, LOG), "kind = 'x'"))


def test_filter_type_error_suggests_try_cast(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"TGN_ROW_FILTER=event_id > 5 .*TRY_CAST"):
        describe_source(filtered(csv(tmp_path, HEADER + "u,e,2024-01-03\n"), "event_id > 5"))


@pytest.mark.parametrize(
    "condition",
    [
        "",
        "event_id =",
        "-- nothing",
        "true, false",
        "true; DROP TABLE users",
        "true); DROP TABLE users; SELECT (true",
        "true) UNION ALL SELECT 1 FROM (VALUES (1)) t WHERE (true",
        "true) GROUP BY (event_id",
        "true) LIMIT (1",
        "event_id IN (SELECT event_id FROM read_csv('/etc/passwd'))",
        "EXISTS (FROM 'other.parquet')",
        "count(*) > 1",
        "row_number() OVER () < 3",
        "random() < 0.5",
        "now() > '2024-01-01'",
        "nextval('s') > 0",
        "no_such_function(event_id)",
        "COLUMNS('.*') = 'x'",
        "event_id = $1",
        "#1 = 'x'",
        "event_id = DEFAULT",
        "getenv('HOME') = 'x'",
        "current_setting('threads') = '1'",
        "getvariable('x') IS NULL",
        "read_text('/etc/passwd') IS NOT NULL",
        "event_id = (FROM read_text('/etc/passwd'))",
        "query('FROM users') IS NULL",
        "__internal_json_copy_to_json(event_id) IS NULL",
        "true; ATTACH 'other.duckdb'",
        "true); COPY (SELECT 1) TO 'out.csv'; SELECT (true",
        "true); INSTALL httpfs; LOAD httpfs; SELECT (true",
        "NOT " * 900 + "true",
        "(" * 9000 + "true" + ")" * 9000,
    ],
)
def test_only_a_condition_on_the_row_itself_is_accepted(condition: str) -> None:
    with pytest.raises(SourceError, match="TGN_ROW_FILTER="):
        check_filter(condition)


@pytest.mark.parametrize(
    "condition",
    ["a = 'x' OR (b IS NULL AND c NOT IN ('y', 'z'))", "a LIKE 'x%'", "TRY_CAST(a AS INT) BETWEEN 1 AND 5", "a",
     "lower(a) = 'x'", "regexp_matches(a, '^x')", "CASE WHEN a = 'x' THEN b = 'y' ELSE true END", "a::INT + 1 > 2",
     "coalesce(a, '') || b <> 'xy'", "extract(hour FROM a::TIMESTAMP) > 6"],
)  # fmt: skip
def test_what_one_writes_in_a_where_is_accepted(condition: str) -> None:
    assert check_filter(condition) == condition


def test_refusal_repeats_no_long_condition() -> None:
    with pytest.raises(SourceError) as raised:
        check_filter("no_such(" + "x" * 100_000 + ")")
    assert len(str(raised.value)) < 500 and "no_such is no function" in str(raised.value)


@pytest.mark.parametrize("damage", ["", "short line\n"])
def test_scan_with_a_filter_reads_nothing_but_the_source(damage: str, tmp_path: Path) -> None:
    (tmp_path / "a[1]").mkdir()
    (tmp_path / "other.csv").write_text("a\n1\n")
    spec = filtered(csv(tmp_path / "a[1]", LOG + damage), CLICKS)
    with warehouse() as con:
        found = scan(con, spec, "SELECT count(*), reason FROM {rows} GROUP BY reason").rows
        assert dict((reason, count) for count, reason in found)[None] == 2
        for query in ("FROM read_text('/etc/passwd')", f"FROM read_csv('{tmp_path}/other.csv')", "LOAD httpfs"):
            with pytest.raises(duckdb.PermissionException):
                con.execute(query)


def test_long_condition_is_refused_with_a_remedy() -> None:
    many = " OR ".join(f"event_id = 'e{number}'" for number in range(2000))
    with pytest.raises(SourceError, match=r"has 2,001 comparisons .* more than 1,000; write many values as id IN") as e:
        check_filter(many)
    assert len(str(e.value)) < 1000
    with pytest.raises(SourceError, match="longer than 1,000,000 characters"):
        check_filter("event_id = '" + "e" * 1_000_000 + "'")


def test_ten_thousand_values_are_filtered_in_an_instant(tmp_path: Path) -> None:
    values = ", ".join(f"'e{number}'" for number in range(10_000))
    spec = replace(csv(tmp_path), row_filter=f"event_id IN ({values})")
    start = time.monotonic()
    describe_source(spec)
    assert time.monotonic() - start < 5
