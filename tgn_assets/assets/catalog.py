"""The assets as one deployment has them in Dagster's catalogue: their weeks, owner, code, and columns' lineage."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import dagster as dg

from tgn_assets.assets.code_version import code_version

RAW, PREDICTIONS = "raw_interactions", "weekly_top5_predictions"
LINEAGE: dict[str, dict[str, dict[str, list[str]]]] = {
    PREDICTIONS: {
        "week": {RAW: ["week"]},
        "target_week": {RAW: ["week"]},
        "user_id": {RAW: ["user_id"]},
        "rank": {RAW: ["user_id", "event_id", "ts"]},
        "event_id": {RAW: ["event_id"]},
        "score": {RAW: ["user_id", "event_id", "ts"]},
        "source": {RAW: ["user_id", "event_id", "ts"]},
        "reason_kind": {RAW: ["user_id", "event_id", "ts"]},
        "reason": {RAW: ["user_id", "event_id", "ts"]},
        "reason_parameters": {RAW: ["user_id", "event_id", "ts"]},
    },
    "eval_metrics": {
        "week": {RAW: ["week"]},
        "model": {PREDICTIONS: ["source"]},
        "segment": {RAW: ["user_id", "event_id", "week"]},
        "metric": {},
        "value": {PREDICTIONS: ["user_id", "rank", "event_id", "score"], RAW: ["user_id", "event_id", "week"]},
        "ci_low": {PREDICTIONS: ["user_id", "rank", "event_id", "score"], RAW: ["user_id", "event_id", "week"]},
        "ci_high": {PREDICTIONS: ["user_id", "rank", "event_id", "score"], RAW: ["user_id", "event_id", "week"]},
        "users": {RAW: ["user_id", "week"]},
    },
}
"""table -> column -> asset -> the columns it is made from."""


def column_lineage(table: str) -> dict[str, dg.TableColumnLineage]:
    """For a materialization of the asset `table`: the columns upstream that each of its columns is made from."""
    columns = {
        column: [dg.TableColumnDep(asset, name) for asset, names in made_from.items() for name in names]
        for column, made_from in LINEAGE[table].items()
    }
    return {"dagster/column_lineage": dg.TableColumnLineage(columns)}


def for_deployment(
    assets: Sequence[dg.AssetsDefinition], weeks: dg.WeeklyPartitionsDefinition | None, *, owner: str
) -> list[dg.AssetsDefinition]:
    """`assets` partitioned by `weeks` (None: not), with their owner, their code version and a link to their code."""
    return [_entry(asset, weeks, owner=owner) for asset in assets]


def _entry(
    asset: dg.AssetsDefinition, weeks: dg.WeeklyPartitionsDefinition | None, *, owner: str
) -> dg.AssetsDefinition:
    function = inspect.unwrap(asset.op.compute_fn.decorated_fn)  # type: ignore[union-attr]
    return asset.map_asset_specs(
        lambda spec: spec.replace_attributes(
            partitions_def=weeks,
            owners=[owner],
            code_version=code_version(function),
            metadata={**spec.metadata, "dagster/code_references": _code_reference(function)},
        )
    )


def _code_reference(function: Callable[..., Any]) -> dg.CodeReferencesMetadataValue:
    # Dagster's own with_source_code_references stops at a decorator, here `explained`, and names the file of that.
    file, line = inspect.getsourcefile(function), inspect.getsourcelines(function)[1]
    place = dg.LocalFileCodeReference(file_path=str(file), line_number=line)
    return dg.CodeReferencesMetadataValue(code_references=[place])
