"""The assets as one deployment has them in Dagster's catalogue: their weeks, owner, code, and columns' lineage."""

import inspect
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import dagster as dg

from tgn_assets.assets.code_version import code_version
from tgn_assets.state.lineage import EVAL_METRICS, PREDICTIONS, RAW, REPORT

ROWS = {RAW: ["user_id", "event_id", "ts"]}
SCORES = {PREDICTIONS: ["user_id", "rank", "event_id", "score"], RAW: ["user_id", "event_id", "week"]}
LINEAGE: dict[str, dict[str, dict[str, list[str]]]] = {
    PREDICTIONS: {
        "week": {RAW: ["week"]},
        "target_week": {RAW: ["week"]},
        "user_id": {RAW: ["user_id"]},
        "event_id": {RAW: ["event_id"]},
        **dict.fromkeys(("rank", "score", "source", "reason_kind", "reason", "reason_parameters"), ROWS),
    },
    EVAL_METRICS: {
        "week": {RAW: ["week"]},
        "model": {PREDICTIONS: ["source"]},
        "segment": {RAW: ["user_id", "event_id", "week"]},
        "metric": {},
        **dict.fromkeys(("value", "ci_low", "ci_high"), SCORES),
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


_version_of = cache(code_version)
"""A process may make the assets of many deployments, and its code stays the same."""


def for_deployment(
    assets: Sequence[dg.AssetsDefinition],
    weeks: dg.WeeklyPartitionsDefinition | None,
    *,
    owner: str,
    reports_url: str | None = None,
) -> list[dg.AssetsDefinition]:
    """`assets` partitioned by `weeks` (None: not), with their owner, their code version and a link to their code.

    With `reports_url`, `weekly_report` has a link to the page that lists all weeks.
    """
    links = {REPORT: {"weekly_pages": dg.MetadataValue.url(f"{reports_url}/index.html")}} if reports_url else {}

    def entry(asset: dg.AssetsDefinition) -> dg.AssetsDefinition:
        function = inspect.unwrap(asset.op.compute_fn.decorated_fn)  # type: ignore[union-attr]
        code = {"dagster/code_references": _code_reference(function)}
        return asset.map_asset_specs(
            lambda spec: spec.replace_attributes(
                partitions_def=weeks,
                owners=[owner],
                code_version=_version_of(function),
                metadata={**spec.metadata, **links.get(spec.key.to_user_string(), {}), **code},
            )
        )

    return [entry(asset) for asset in assets]


def _code_reference(function: Callable[..., Any]) -> dg.CodeReferencesMetadataValue:
    # Dagster's own with_source_code_references stops at a decorator, here `as_dagster_failure`, and names the file of
    # that.
    file, line = inspect.getsourcefile(function), inspect.getsourcelines(function)[1]
    place = dg.LocalFileCodeReference(file_path=str(file), line_number=line)
    return dg.CodeReferencesMetadataValue(code_references=[place])
