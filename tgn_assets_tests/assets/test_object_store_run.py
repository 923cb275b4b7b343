"""A week that comes from a bucket and goes to one, as Dagster records it."""

from pathlib import Path

import dagster as dg

from tgn_assets.assets.exports import parquet_export_asset
from tgn_assets.assets.ingest import data_assets
from tgn_assets.assets.partitions import weekly_partitions
from tgn_assets.ml.sources.extent import SourceSpec
from tgn_assets_tests.support.event_logs import ROWS, WEEKS
from tgn_assets_tests.support.s3 import BUCKET, SECRET, bucket
from tgn_assets_tests.support.weekly_reports import warehouse


def test_no_secret_is_in_the_metadata_the_log_or_the_failure_of_a_run(tmp_path: Path) -> None:
    weeks, week = weekly_partitions(WEEKS[0]), WEEKS[-1]
    ingest, export = data_assets(weeks, None)[0], parquet_export_asset(weeks, f"s3://{BUCKET}/out")
    resources = {"warehouse": warehouse(tmp_path), "source": SourceSpec(f"s3://{BUCKET}/log.csv")}
    with bucket() as s3:
        s3.pipe(f"{BUCKET}/log.csv", "\n".join(["ip_address,event_id,timestamp", *ROWS, "a,b"]).encode())
        for works in (True, False):
            if not works:
                s3.rm(f"{BUCKET}/log.csv")
            with dg.DagsterInstance.ephemeral() as instance:
                done = dg.materialize(
                    [ingest, export], partition_key=week, resources=resources, raise_on_error=False, instance=instance
                )
                told = "\n".join(repr(entry) for entry in instance.all_logs(done.run_id))
            assert done.success == works and SECRET not in told
            assert f"s3://{BUCKET}/out" in told and ("rejected_rows" in told) == works
            assert ("has no .csv" in told) != works
        assert len(s3.glob(f"{BUCKET}/out/*/week={week}/data.parquet")) == 3
