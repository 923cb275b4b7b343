"""A forgotten id is in no export: a folder, a bucket, a PostgreSQL database."""

import shutil
import subprocess
from pathlib import Path

import duckdb
import pytest

from tgn_assets.automation.backlog import Backlog
from tgn_assets.forget.erase import forget
from tgn_assets.forget.exported import CLEANED, clean_export, unset_locations
from tgn_assets.forget.spelling import Ids
from tgn_assets.forget.verify import SEARCHED
from tgn_assets.ml.export.destinations import DESTINATIONS, export_weeks
from tgn_assets.ml.schema import EVENT as EVENTS
from tgn_assets.ml.schema import USER as USERS
from tgn_assets.state.home import Home
from tgn_assets_tests.forget.conftest import EVENT, LONG, OTHERS, SHORT, WEEKS, left, settings_of
from tgn_assets_tests.support.postgres import Postgres
from tgn_assets_tests.support.s3 import BUCKET, bucket


def rows(pattern: str, column: str) -> list[str]:
    found = duckdb.execute(f"SELECT DISTINCT {column} FROM read_parquet('{pattern}') ORDER BY 1").fetchall()
    return [value for (value,) in found]


def test_every_destination_can_be_cleaned_and_searched() -> None:
    assert CLEANED.keys() == SEARCHED.keys() == DESTINATIONS.keys()


def test_a_folder_loses_the_user_and_no_other_row(home: Home, folder: Path) -> None:
    lists = f"{folder}/exported/weekly_top5_predictions/*/data.parquet"
    count = f"SELECT count(*) FROM read_parquet('{lists}') WHERE user_id <> '{LONG}'"
    before = duckdb.execute(count).fetchall()
    forget(home, USERS, [LONG], print)
    assert rows(lists, "user_id") == sorted([SHORT, *OTHERS])
    assert duckdb.execute(count).fetchall() == before
    assert not list((folder / "exported").rglob("*.new"))


def test_a_bucket_loses_the_event(home: Home, folder: Path, tmp_path: Path) -> None:
    with bucket() as store:
        place = f"s3://{BUCKET}/lists"
        elsewhere = Home(settings_of(folder, export_parquet=place))
        export_weeks(DESTINATIONS["parquet"], home.warehouse().reader, place, WEEKS[1:])
        assert left(elsewhere, EVENTS, EVENT)
        assert clean_export("parquet", place, EVENTS, Ids([EVENT])) > 0
        store.get(f"{BUCKET}/lists/", str(tmp_path / "copy"), recursive=True)
    table = f"{tmp_path}/copy/weekly_top5_predictions/*/data.parquet"
    assert EVENT not in rows(table, "event_id")
    gaps = f"FROM read_parquet('{table}', filename = true) SELECT 1 GROUP BY filename, user_id"
    assert duckdb.execute(f"{gaps} HAVING max(rank) <> count(*)").fetchall() == []


@pytest.mark.parametrize(("kind", "name"), [(USERS, LONG), (EVENTS, EVENT), (USERS, SHORT)])
def test_a_postgres_dump_does_not_name_it(home: Home, folder: Path, postgres: Postgres, kind: str, name: str) -> None:
    schema = f"forget_{abs(hash(name))}"
    postgres.run(f"CREATE SCHEMA {schema}")
    place = f"{postgres.url()}?schema={schema}"
    elsewhere = Home(settings_of(folder, export_postgres=place))
    export_weeks(DESTINATIONS["postgres"], home.warehouse().reader, place, WEEKS[1:])
    dumped = _dump(postgres, schema)
    assert f"\t{name}\t" in dumped
    assert any(trace.place == "PostgreSQL" for trace in left(elsewhere, kind, name))
    forget(elsewhere, kind, [name], print)
    assert f"\t{name}\t" not in _dump(postgres, schema)
    assert left(elsewhere, kind, name) == []
    gaps = f"SELECT 1 FROM {schema}.weekly_top5_predictions GROUP BY week, user_id HAVING max(rank) <> count(*)"
    assert postgres.run(gaps) == []


def _dump(postgres: Postgres, schema: str) -> str:
    program = max(map(str, Path("/usr/lib/postgresql").glob("*/bin/pg_dump")), default=shutil.which("pg_dump"))
    if program is None:
        pytest.skip("there is no pg_dump: `apt-get install postgresql`")
    command = [program, "-n", schema, postgres.url()]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_a_place_that_is_not_set_is_said_and_written_anew_later(home: Home) -> None:
    without = Home(home.settings.model_copy(update={"export_parquet": None}))
    forget(without, USERS, [LONG], print)
    assert Backlog(without).work_items() == [] and left(home, USERS, LONG)
    assert {(item.first, item.assets) for item in Backlog(home).work_items()} == {
        (week, ("parquet_export",)) for week in WEEKS[1:]
    }
    for of, said in ((without, ["TGN_EXPORT_PARQUET"]), (home, [])):
        assert unset_locations(of.warehouse().lineage(), of.settings.export_locations()) == said
    forget(home, USERS, [SHORT], print)
    assert left(home, USERS, SHORT) == []


def test_an_unreachable_place_is_one_error_and_forgetting_is_unfinished(home: Home, folder: Path) -> None:
    from tgn_assets.cli.doctor import findings
    from tgn_assets.forget.exported import CleanError

    elsewhere = Home(settings_of(folder, export_postgres="postgresql://postgres@127.0.0.1:1/shop"))
    with pytest.raises(CleanError, match=r"TGN_EXPORT_POSTGRES cannot be cleaned"):
        forget(elsewhere, USERS, [LONG], print)
    assert any("did not finish" in str(finding) for finding in findings(elsewhere))
    forget(home, USERS, [LONG], print)
    assert not any("did not finish" in str(finding) for finding in findings(home))
