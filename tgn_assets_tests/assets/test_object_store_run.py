"""A week that comes from a bucket and goes to one, as Dagster records it."""

from pathlib import Path

import dagster as dg

from tgn_assets.assets.catalog import for_deployment
from tgn_assets.assets.exports import export_asset
from tgn_assets.assets.ingest import raw_interactions
from tgn_assets.assets.partitions import weekly_partitions
from tgn_assets.ml.sources.spec import SourceSpec
from tgn_assets_tests.support.event_logs import ROWS, WEEKS
from tgn_assets_tests.support.s3 import BUCKET, SECRET, bucket
from tgn_assets_tests.support.weekly_reports import warehouse


def test_object_store_secret_is_never_shown(tmp_path: Path) -> None:
    weeks, week = weekly_partitions(WEEKS[0]), WEEKS[-1]
    export = export_asset("parquet", f"s3://{BUCKET}/out")
    assets = for_deployment([raw_interactions, export], weeks, owner="team:test")
    resources = {"warehouse": warehouse(tmp_path), "source": SourceSpec(f"s3://{BUCKET}/log.csv")}
    with bucket() as s3:
        s3.pipe(f"{BUCKET}/log.csv", "\n".join(["ip_address,event_id,timestamp", *ROWS, "a,b"]).encode())
        for works in (True, False):
            if not works:
                s3.rm(f"{BUCKET}/log.csv")
            with dg.DagsterInstance.ephemeral() as instance:
                done = dg.materialize(
                    assets, partition_key=week, resources=resources, raise_on_error=False, instance=instance
                )
                told = "\n".join(repr(entry) for entry in instance.all_logs(done.run_id))
            assert done.success == works and SECRET not in told
            assert f"s3://{BUCKET}/out" in told and ("rejected_rows" in told) == works
            assert ("has no .csv" in told) != works
        assert len(s3.glob(f"{BUCKET}/out/*/week={week}/data.parquet")) == 3
