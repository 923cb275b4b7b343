"""Lists and metrics in a real PostgreSQL, week by week: the old week or the new one, in all tables."""

from pathlib import Path
from uuid import uuid4

import dagster as dg
import pandas as pd
import pytest
from adbc_driver_postgresql import dbapi
from click.testing import CliRunner

from tgn_assets.assets.catalog import for_deployment
from tgn_assets.assets.exports import export_asset
from tgn_assets.assets.ingest import raw_interactions
from tgn_assets.assets.partitions import weekly_partitions
from tgn_assets.cli.main import cli
from tgn_assets.definitions import build_definitions
from tgn_assets.ml.export.parquet import EXPORTED, ExportError
from tgn_assets.ml.export.postgres import KEYS, read_week, replace_week
from tgn_assets.settings import Settings, SettingsError, read_settings
from tgn_assets.state.home import Home
from tgn_assets.state.warehouse import Warehouse
from tgn_assets_tests.support.event_logs import home_on_log
from tgn_assets_tests.support.postgres import Postgres
from tgn_assets_tests.support.weekly_reports import WEEKS, metrics, warehouse

WEEK = WEEKS[-1]
DOWN = "postgresql://postgres@127.0.0.1:1/shop"


def weekly(asset: dg.AssetsDefinition, start_week: str) -> dg.AssetsDefinition:
    (partitioned,) = for_deployment([asset], weekly_partitions(start_week), owner="team:test")
    return partitioned


@pytest.fixture
def filled(tmp_path: Path) -> Warehouse:
    return warehouse(tmp_path)


@pytest.fixture
def schema(postgres: Postgres) -> str:
    """An empty schema of the test's own."""
    name = f"s{uuid4().hex}"
    postgres.run(f"CREATE SCHEMA {name}")
    return name


def export(filled: Warehouse, url: str, week: str = WEEK) -> dict[str, int]:
    with filled.reader() as con:
        tables = read_week(con, week)
    return replace_week(url, week, tables)


def test_postgres_export_copies_every_row(filled: Warehouse, postgres: Postgres, schema: str) -> None:
    url = f"{postgres.url()}?schema={schema}"
    with postgres.copied() as copied:
        rows = [export(filled, url, week) for week in WEEKS[1:]]
    with filled.reader() as con:
        for table in EXPORTED:
            columns = ", ".join(name for name, *_ in con.execute(f"DESCRIBE {table}").fetchall())
            stored = con.execute(f"SELECT {columns} FROM {table}").fetchall()
            assert sorted(postgres.run(f"SELECT * FROM {schema}.{table}")) == sorted(stored)
            assert sum(week[table] for week in rows) == len(stored) > 0
    assert copied[0] >= sum(sum(week.values()) for week in rows)
    types = f"SELECT column_name, data_type FROM information_schema.columns WHERE table_schema = '{schema}'"
    assert {("week", "date"), ("score", "double precision"), ("user_id", "text")} <= set(postgres.run(types))


def keys(postgres: Postgres, schema: str) -> dict[str, str]:
    """The columns of the primary key of each table that has one."""
    columns = "string_agg(column_name, ' ' ORDER BY ordinal_position)"
    query = f"SELECT table_name, {columns} FROM information_schema.key_column_usage"
    return dict(postgres.run(f"{query} WHERE table_schema = '{schema}' GROUP BY table_name"))


def test_exported_tables_have_keys_and_a_view_of_newest_lists(
    filled: Warehouse, postgres: Postgres, schema: str
) -> None:
    url, view = f"{postgres.url()}?schema={schema}", f"SELECT * FROM {schema}.current_top5 ORDER BY user_id, rank"
    export(filled, url, WEEKS[1])
    assert keys(postgres, schema) == {name: " ".join(key) for name, key in KEYS.items()}
    assert {str(week) for week, *_ in postgres.run(view)} == {WEEKS[1]}
    export(filled, url, WEEK)
    with filled.reader() as con:
        assert postgres.run(view) == con.execute("SELECT * FROM current_top5 ORDER BY user_id, rank").fetchall()


def test_tables_of_an_older_release_get_their_keys(filled: Warehouse, postgres: Postgres, schema: str) -> None:
    url = f"{postgres.url()}?schema={schema}"
    export(filled, url, WEEKS[1])
    undo = [f"ALTER TABLE {schema}.{table} DROP CONSTRAINT {table}_pkey" for table in EXPORTED]
    postgres.run(*undo, f"DROP VIEW {schema}.current_top5")
    export(filled, url, WEEK)
    assert set(keys(postgres, schema)) == set(EXPORTED)
    lists = f"{schema}.weekly_top5_predictions"
    assert postgres.run(f"SELECT count(*) FROM {schema}.current_top5") == [(2,)]
    twice = f"INSERT INTO {lists} SELECT * FROM {lists} WHERE week = '{WEEKS[1]}' AND user_id = 'ann'"
    postgres.run(undo[0], twice)
    with pytest.raises(ExportError, match=rf"several rows of \(week, user_id, rank\) = \({WEEKS[1]}, ann, 1\).*drop"):
        export(filled, url, WEEK)
    assert postgres.run(f"SELECT count(*) FROM {lists}") == [(5,)]


def test_tables_of_an_older_release_get_columns_of_reasons(filled: Warehouse, postgres: Postgres, schema: str) -> None:
    url, lists, view = (
        f"{postgres.url()}?schema={schema}",
        f"{schema}.weekly_top5_predictions",
        f"{schema}.current_top5",
    )
    export(filled, url, WEEKS[1])
    postgres.run(f"DROP VIEW {view}")
    for table in ("weekly_top5_predictions", "new_user_top5_predictions"):
        drop = [f"DROP COLUMN {column}" for column in ("reason_kind", "reason", "reason_parameters")]
        postgres.run(f"ALTER TABLE {schema}.{table} {', '.join(drop)}")
    with filled.writer() as con:
        con.execute("UPDATE weekly_top5_predictions SET reason = 'so' WHERE week = ?", [WEEK])
    export(filled, url, WEEK)
    assert postgres.run(f"SELECT DISTINCT reason FROM {view}") == [("so",)]
    assert postgres.run(f"SELECT count(*) FROM {lists} WHERE reason IS NULL") == [(2,)]
    with filled.writer() as con:
        con.execute("DELETE FROM weekly_top5_predictions WHERE week = ?", [WEEK])  # all users were left out
    export(filled, url, WEEK)
    assert postgres.run(f"SELECT count(*) FROM {view}") == [(0,)]


def test_a_writer_without_the_right_to_create_fills_tables(
    filled: Warehouse, postgres: Postgres, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(filled, f"{postgres.url()}?schema={schema}", WEEKS[1])
    postgres.run(
        *(f"ALTER TABLE {schema}.{table} DROP CONSTRAINT {table}_pkey" for table in EXPORTED),
        f"DROP VIEW {schema}.current_top5",
        f"CREATE ROLE {schema} LOGIN PASSWORD 'filler'",
        f"GRANT USAGE ON SCHEMA {schema} TO {schema}",
        f"GRANT SELECT, INSERT, DELETE ON ALL TABLES IN SCHEMA {schema} TO {schema}",
    )
    monkeypatch.setenv("PGPASSWORD", "filler")
    assert export(filled, f"{postgres.url(schema)}?schema={schema}", WEEK)["weekly_top5_predictions"] == 2
    assert keys(postgres, schema) == {}


def test_postgres_export_is_one_transaction(
    filled: Warehouse, postgres: Postgres, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{postgres.url()}?schema={schema}"
    export(filled, url)
    seen, ingest = [], dbapi.Cursor.adbc_ingest
    values = f"SELECT value FROM {schema}.eval_metrics WHERE model = 'tgn_assets'"
    lists = f"SELECT count(*) FROM {schema}.weekly_top5_predictions"

    def look(self: dbapi.Cursor, *given: object, **named: object) -> int:
        count = ingest(self, *given, **named)
        seen.append((postgres.run(values), postgres.run(lists)))
        return count

    monkeypatch.setattr(dbapi.Cursor, "adbc_ingest", look)
    filled.replace_week_tables(WEEK, {"eval_metrics": metrics(WEEK, 0.1, 0.2)})
    export(filled, url)
    assert seen == [([(0.5,)], [(2,)])] * len(EXPORTED)
    assert postgres.run(values) == [(0.1,)] and postgres.run(lists) == [(2,)]


def test_failed_postgres_export_changes_nothing(filled: Warehouse, postgres: Postgres, schema: str) -> None:
    url = f"{postgres.url()}?schema={schema}"
    export(filled, url)
    before = [postgres.run(f"SELECT * FROM {schema}.{table}") for table in EXPORTED]
    postgres.run(f"ALTER TABLE {schema}.eval_metrics ADD CHECK (value > 0.15) NOT VALID")
    filled.replace_week_tables(WEEK, {"eval_metrics": metrics(WEEK, 0.1, 0.2)})
    frame = {
        "week": [WEEK],
        "target_week": [WEEK],
        "rank": [1],
        "event_id": ["z"],
        "score": [0.2],
        "source": ["popular"],
    }
    filled.replace_week_tables(WEEK, {"new_user_top5_predictions": pd.DataFrame(frame)})
    with pytest.raises(ExportError, match=rf"violates check constraint.*`tgn export --week {WEEK}`") as raised:
        export(filled, url)
    assert len(str(raised.value).splitlines()) == 1
    assert [postgres.run(f"SELECT * FROM {schema}.{table}") for table in EXPORTED] == before


def test_postgres_export_waits_for_its_lock(filled: Warehouse, postgres: Postgres, schema: str) -> None:
    url = f"{postgres.url()}?schema={schema}&options=-clock_timeout%3D100"
    with dbapi.connect(postgres.url()) as con, con.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('tgn_assets'))")
        cursor.fetchall()
        with pytest.raises(ExportError, match="lock timeout"):
            export(filled, url)
    assert export(filled, url)["weekly_top5_predictions"] == 2


def test_missing_schema_is_named(filled: Warehouse, postgres: Postgres) -> None:
    with pytest.raises(ExportError, match="no schema has been selected to create in"):
        export(filled, f"{postgres.url()}?schema=nowhere")


def test_export_step_fails_alone_when_server_is_down(filled: Warehouse, tmp_path: Path) -> None:
    asset = weekly(export_asset("postgres", DOWN), WEEKS[0])
    done = dg.materialize([asset], partition_key=WEEK, resources={"warehouse": filled}, raise_on_error=False)
    (failure,) = done.get_step_failure_events()
    description = str(failure.step_failure_data.user_failure_data.description)  # type: ignore[union-attr]
    assert "TGN_EXPORT_POSTGRES" in description and "Connection refused" in description
    assert f"tgn export --week {WEEK}" in description
    settings = home_on_log(tmp_path, export_postgres=DOWN).settings
    graph = build_definitions(settings).resolve_asset_graph()
    node = graph.get(dg.AssetKey("postgres_export"))
    assert {key.to_user_string() for key in node.parent_keys} == {"weekly_top5_predictions", "eval_metrics"}
    assert not node.child_keys


def test_postgres_export_password_is_never_shown(
    filled: Warehouse, postgres: Postgres, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    postgres.run("CREATE ROLE writer LOGIN PASSWORD 'open-sesame'", f"GRANT ALL ON SCHEMA {schema} TO writer")
    asset = weekly(export_asset("postgres", f"{postgres.url('writer')}?schema={schema}"), WEEKS[0])
    for password, works in (("open-says-me", False), ("open-sesame", True)):
        monkeypatch.setenv("PGPASSWORD", password)
        with dg.DagsterInstance.ephemeral() as instance:
            done = dg.materialize(
                [asset], partition_key=WEEK, resources={"warehouse": filled}, raise_on_error=False, instance=instance
            )
            assert done.success == works
            told = "\n".join(repr(entry) for entry in instance.all_logs(done.run_id))
        assert "open-" not in told
        assert ("writer@127.0.0.1" if works else "password authentication failed") in told


def test_tgn_export_writes_all_weeks_to_postgres(
    filled: Warehouse, postgres: Postgres, schema: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url = f"{postgres.url()}?schema={schema}"
    monkeypatch.setenv("TGN_EXPORT_POSTGRES", url)
    monkeypatch.setenv("TGN_HOME", str(tmp_path))
    done = CliRunner().invoke(cli, ["export"])
    assert done.exit_code == 0, done.output
    assert f"6 rows  {url} weekly_top5_predictions" in done.output
    assert postgres.run(f"SELECT count(DISTINCT week) FROM {schema}.weekly_top5_predictions") == [(3,)]


def test_postgres_source_run_shows_no_password(
    postgres: Postgres, schema: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    postgres.run(
        f"CREATE TABLE {schema}.log AS SELECT 'u' AS ip_address, 'e' AS event_id, day AS timestamp "
        "FROM generate_series(timestamp '2024-01-01', timestamp '2024-01-21', '1 day') AS day",
        "CREATE ROLE analyst LOGIN PASSWORD 'open-sesame'",
        f"GRANT USAGE ON SCHEMA {schema} TO analyst",
        f"GRANT SELECT ON {schema}.log TO analyst",
    )
    monkeypatch.setenv("PGPASSWORD", "open-sesame")
    home = Home(Settings(home=tmp_path, source=postgres.url("analyst"), source_query=f"{schema}.log"))
    assert (home.start_week(), home.newest_closed_week()) == ("2024-01-01", "2024-01-15")
    raw = weekly(raw_interactions, "2024-01-08")
    with dg.DagsterInstance.ephemeral() as instance:
        given = {"warehouse": home.warehouse(), "source": home.source_spec()}
        done = dg.materialize([raw], partition_key="2024-01-08", resources=given, instance=instance)
        told = "\n".join(repr(entry) for entry in instance.all_logs(done.run_id))
    (made,) = done.asset_materializations_for_node("raw_interactions")
    assert made.metadata["dagster/partition_row_count"].value == 7
    assert "filtered" in made.metadata and "rows_before_first_week" not in made.metadata
    written = "".join(path.read_text() for path in tmp_path.rglob("*.json"))
    assert "open-sesame" not in told + written and "analyst" in written


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (
            {"TGN_SOURCE": "postgresql://u:open-sesame@h/db", "TGN_SOURCE_QUERY": "log"},
            "TGN_SOURCE: it holds a password",
        ),
        ({"TGN_EXPORT_POSTGRES": "postgresql://u:open-sesame@h/db"}, "TGN_EXPORT_POSTGRES: it holds a password"),
        ({"TGN_EXPORT_POSTGRES": "mysql://h/db"}, "TGN_EXPORT_POSTGRES: it is no URL of PostgreSQL"),
        ({"TGN_SOURCE": "postgresql://h/db"}, "TGN_SOURCE=postgresql://h/db needs TGN_SOURCE_QUERY"),
        ({"TGN_SOURCE_QUERY": "log"}, "TGN_SOURCE_QUERY is for a PostgreSQL source; TGN_SOURCE=synthetic is none"),
        ({"TGN_SOURCE": "postgresql://h/db", "TGN_SOURCE_QUERY": "DROP TABLE x"}, "TGN_SOURCE_QUERY: DROP TABLE x is"),
    ],
)
def test_bad_postgres_settings_are_named_without_password(
    environment: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=f"^{message}") as raised:
        read_settings()
    error: BaseException | None = raised.value
    while error:
        assert "open-sesame" not in str(error)
        error = error.__cause__
