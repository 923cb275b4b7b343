"""The proof that time is respected, on the user's own data: slow, hence optional and no part of the weekly job."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import dagster as dg

from tgn_assets.assets.mlflow_tracking import untracked
from tgn_assets.ml.recommend.published import read_publication_record
from tgn_assets.ml.schema import LISTS
from tgn_assets.ml.weeks import shift
from tgn_assets.state.artifact_store import TYPES, ArtifactStore
from tgn_assets.state.home import Home
from tgn_assets.state.lineage import PREDICTIONS, digest_of_files
from tgn_assets.state.resources import build_resources
from tgn_assets.state.user_errors import as_dagster_failure
from tgn_assets.state.warehouse import Warehouse

FUTURE_BLIND = "future_blind"
PAST = {"raw_interactions": "week", "users": "first_week", "events": "first_week", "ingested_weeks": "week"}
"""The tables that the model reads, each with the column by which a row belongs to the past."""


def future_blind_check(
    assets: Sequence[dg.AssetsDefinition], weeks: dg.WeeklyPartitionsDefinition, home: Home
) -> dg.AssetChecksDefinition:
    """The check `future_blind`, which makes a week of `assets` again as if `home` had no later one."""

    @dg.asset_check(
        asset=PREDICTIONS,
        name=FUTURE_BLIND,
        partitions_def=weeks,
        required_resource_keys={"io_manager"},  # takes the run lock
        description=(
            "Makes the week again, from its snapshot to its predictions, in a temporary home that holds nothing newer, "
            "and compares every byte. Takes as long as the week itself."
        ),
    )
    def future_blind(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        week = context.partition_key
        with as_dagster_failure(), untracked(), tempfile.TemporaryDirectory(prefix="tgn-future-blind-") as folder:
            blind = Home(home.settings.model_copy(update={"home": Path(folder).resolve()})).ensure()
            copy_tables(home.warehouse(), blind.warehouse(), week)
            made, past = home.artifact_store(), blind.artifact_store()
            link_past(made, past, week)
            with home.warehouse().reader() as con:
                past.pin(read_publication_record(con, week).model_week)
            training = {name: made.load(name, week).config.model_dump() for name in ("trained_gnn", "trained_ranker")}
            dg.materialize(
                assets,
                selection=[*TYPES, PREDICTIONS],
                partition_key=week,
                resources=build_resources(blind, home.source_spec()),
                run_config={"ops": {name: {"config": config} for name, config in training.items()}},
                instance=dg.DagsterInstance.ephemeral(),
            )
            rows, blind_rows = (_published(at.warehouse(), week) for at in (home, blind))
            digests = {name: [digest_of_files(at.directory(name, week)) for at in (made, past)] for name in TYPES}
            differing = [name for name, (one, other) in digests.items() if one != other]
            differing += [table for table in LISTS if rows[table] != blind_rows[table]]
        return dg.AssetCheckResult(
            passed=not differing,
            description=(
                f"{', '.join(differing)} of week {week} came out differently when nothing after that week existed. "
                f"Either something read the future, or the past of week {week} changed since it was made: run "
                f"weekly_refresh for {week}, then this check again, to tell which."
                if differing
                else f"Week {week} comes out the same, to the byte, when nothing after it exists."
            ),
            metadata={"differing": len(differing)},
        )

    return future_blind


def copy_tables(source: Warehouse, target: Warehouse, week: str) -> None:
    """Copies what `source` holds of weeks up to `week`, and nothing newer, to the new warehouse `target`."""
    with tempfile.TemporaryDirectory(prefix="tgn-future-blind-") as folder:
        with source.reader() as con:
            for table, column in PAST.items():
                rows = con.sql(f"SELECT * FROM {table} WHERE {column} <= $week", params={"week": week})
                rows.write_parquet(f"{folder}/{table}.parquet")
        with target.writer() as con:
            for table in PAST:
                con.execute(
                    f"INSERT INTO {table} BY NAME FROM read_parquet(?, hive_partitioning = false)",
                    [f"{folder}/{table}.parquet"],
                )


def link_past(source: ArtifactStore, target: ArtifactStore, week: str) -> None:
    """Gives `target` the artifacts of `source` that are older than `week`, without copying them."""
    cold = source.load("trained_gnn", week).warm_from is None
    for asset in TYPES:
        for earlier in source.weeks(asset):
            # A model that did start cold must not be given a warm start that only came to be afterwards.
            if earlier < week and not (cold and (asset, earlier) == ("trained_gnn", shift(week, -1))):
                link = target.directory(asset, earlier)
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(source.directory(asset, earlier))


def _published(warehouse: Warehouse, week: str) -> dict[str, list[tuple]]:
    """The rows of `week` by table."""
    query = "SELECT * FROM {} WHERE week = ? ORDER BY ALL"
    with warehouse.reader() as con:
        return {table: con.execute(query.format(table), [week]).fetchall() for table in LISTS}
