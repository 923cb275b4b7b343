import duckdb
import pytest

from tgn_assets.ml.monitoring.trends import activity, catalogue_use, quality
from tgn_assets.ml.schema import create_tables


@pytest.fixture
def con() -> duckdb.DuckDBPyConnection:
    con = duckdb.connect()
    create_tables(con)
    con.execute("""
        INSERT INTO raw_interactions VALUES
            ('ann', 'x', '2024-01-02', '2024-01-01'), ('ann', 'y', '2024-01-03', '2024-01-01'),
            ('bob', 'x', '2024-01-09', '2024-01-08'), ('bob', 'x', '2024-01-16', '2024-01-15')
    """)
    con.execute("""
        INSERT INTO eval_metrics VALUES
            ('2024-01-08', 'tgn_assets', 'all', 'ndcg', 0.5, 0.4, 0.6, 9),
            ('2024-01-08', 'popular', 'all', 'ndcg', 0.3, 0.2, 0.4, 9),
            ('2024-01-08', 'popular', 'all', 'mrr', 0.9, 0.8, 1.0, 9),
            ('2024-01-08', 'popular', 'seen', 'ndcg', 0.9, 0.8, 1.0, 9),
            ('2024-01-08', 'ceiling', 'all', 'ndcg', 1.0, 1.0, 1.0, 9),
            ('2024-01-08', 'without_fallback', 'all', 'ndcg', 0.6, 0.5, 0.7, 9),
            ('2024-01-08', 'ungated', 'all', 'ndcg', 0.6, 0.5, 0.7, 9),
            ('2024-01-15', 'tgn_assets', 'all', 'ndcg', 0.7, 0.6, 0.8, 9)
    """)
    con.execute("INSERT INTO events VALUES ('x', 0, '2024-01-01'), ('y', 1, '2024-01-01'), ('z', 2, '2024-01-08')")
    con.execute("""
        INSERT INTO published_weeks VALUES
            ('2023-12-25', '2024-01-01', '2023-12-25', 5, 0, 0, '{}'),
            ('2024-01-01', '2024-01-08', '2024-01-01', 5, 2, 1, '{}'),
            ('2024-01-08', '2024-01-15', '2024-01-08', 5, 2, 2, '{}'),
            ('2024-01-15', '2024-01-22', '2024-01-15', 5, 1, 1, '{}')
    """)
    return con


def test_activity_counts_by_week(con: duckdb.DuckDBPyConnection) -> None:
    rows = activity(con, "2024-01-08").drop(columns="week").to_numpy().tolist()
    assert rows == [[2, 1, 2], [1, 1, 1]]


def test_quality_has_ours_and_baselines_only(
    con: duckdb.DuckDBPyConnection,
) -> None:
    rows = quality(con, "2024-01-08").drop(columns="week").to_numpy().tolist()
    assert rows == [["popular", 0.3, 0.2, 0.4], ["tgn_assets", 0.5, 0.4, 0.6]]


def test_trend_looks_half_a_year_back(con: duckdb.DuckDBPyConnection) -> None:
    assert len(activity(con, "2024-06-24")) == 3
    assert len(activity(con, "2024-07-01")) == 2


def test_catalogue_use_counts_distinct_events(con: duckdb.DuckDBPyConnection) -> None:
    rows = catalogue_use(con, "2024-01-08").drop(columns="week").to_numpy().tolist()
    assert rows == [[1, 2], [2, 3]]
