import re
from pathlib import Path

import duckdb
import pandas as pd
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tgn_assets.ml.sources.relations import WHOLE_NUMBER
from tgn_assets.ml.sources.spec import NULL_VALUES, SourceSpec
from tgn_assets_tests.support.histories import BAD, HEADER, WEEKS, csv, indices, load, rows, warehouse

PROPERTY = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=6)


@PROPERTY
@given(st.lists(st.sets(st.sampled_from(range(3))), max_size=3), st.permutations([[0], [1, 2], [2, 1, 0]]))
def test_any_order_of_loads_ends_in_the_same_tables(
    tmp_path: Path, extra: list[set[int]], order: list[list[int]]
) -> None:
    days = ["2024-01-01", "2024-01-07", "2024-01-08", "2024-01-21", "2023-12-31", "2024-01-22"]
    good = [f"u{number % 3},e{number % 2},{day}" for number, day in enumerate(days * 2)]
    spec = csv(tmp_path, HEADER + "\n".join(good + BAD))
    with warehouse() as at_once, warehouse() as piecemeal:
        load(at_once, spec)
        for weeks in [*map(list, extra), *order]:
            load(piecemeal, spec, [WEEKS[week] for week in weeks])
        for table in ("raw_interactions", "rejected_interactions", "ingested_weeks"):
            assert rows(piecemeal, table) == rows(at_once, table)


Change = tuple[list[tuple[int, int, int]], list[int]]


@PROPERTY
@given(
    st.lists(
        st.tuples(
            st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=6),
            st.lists(st.integers(0, 2), unique=True),
        ),
        max_size=5,
    )
)
def test_indices_never_change_and_first_weeks_stay_true(tmp_path: Path, changes: list[Change]) -> None:
    with warehouse() as con:
        given_before: dict[tuple[str, str], int] = {}
        for log, weeks in changes:
            text = "".join(f"u{user},e{event},{WEEKS[week]}\n" for user, event, week in log)
            load(con, csv(tmp_path, HEADER + text), [WEEKS[week] for week in weeks])
            for node in ("user", "event"):
                known = indices(con, node)
                now = {(node, identity): index for identity, (index, _) in known.items()}
                assert now.items() >= {key: index for key, index in given_before.items() if key[0] == node}.items()
                assert sorted(now.values()) == list(range(len(now)))
                given_before |= now
                query = f"SELECT {node}_id, min(week)::VARCHAR FROM raw_interactions GROUP BY 1"
                seen = dict(con.execute(query).fetchall())
                assert {identity: week for identity, (_, week) in known.items() if week} == seen


Ids = st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=5)
NASTY = [
    "'; DROP TABLE users; --",
    '"',
    '""',
    "'",
    ",",
    "a\nb",
    "a\r\nb",
    " x ",
    "007",
    "NA",
    "7.0.0",
    "é\u0301",
    "💥",
    "\\",
]


@PROPERTY
@given(Ids)
def test_ids_of_csv_and_parquet_come_out_exactly_as_they_went_in(tmp_path: Path, drawn: list[str]) -> None:
    assume(all(value.strip() and value not in NULL_VALUES and not re.search(WHOLE_NUMBER, value) for value in drawn))
    ids = [*NASTY, "x" * 1000, *drawn]
    frame = pd.DataFrame({"ip_address": ids, "event_id": ids[::-1], "timestamp": "2024-01-03"})
    frame.to_csv(tmp_path / "log.csv", index=False, lineterminator="\r\n")  # else pandas leaves a CR unquoted
    with duckdb.connect() as writer:
        writer.register("frame", frame)
        writer.execute(f"COPY frame TO '{tmp_path}/log.parquet'")
    for name in ("log.csv", "log.parquet"):
        with warehouse() as con:
            load(con, SourceSpec(str(tmp_path / name)), WEEKS[:1])
            found = con.execute("SELECT user_id, event_id FROM raw_interactions").fetchall()
            assert sorted(found) == sorted(zip(ids, ids[::-1], strict=True))
            assert set(indices(con, "user")) == set(indices(con, "event")) == set(ids)
