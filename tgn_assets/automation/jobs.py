"""The jobs: the assets and checks of one run, which is for one week, and the observation of the source."""

from collections.abc import Sequence

import dagster as dg

from tgn_assets.assets.interaction_log import LOG
from tgn_assets.automation.runs import JOB, OBSERVE_JOB
from tgn_assets.checks.monitoring import WARNING_KEYS
from tgn_assets.checks.reasons import REASONS_KEY
from tgn_assets.ml.recommend.publish_checks import CHECKS
from tgn_assets.names import Names
from tgn_assets.state.dagster_compat import UnresolvedAssetJobDefinition
from tgn_assets.state.lineage import PREDICTIONS


def jobs_of(names: Names, assets: Sequence[dg.AssetsDefinition]) -> list[UnresolvedAssetJobDefinition]:
    """The jobs of a deployment with these `names`, whose weeks have `assets`: `weekly_refresh`, `observe_source`."""
    keys = names.keys(key.path[-1] for asset in assets for key in asset.keys)
    before_publishing = [dg.AssetCheckKey(names.key(PREDICTIONS), name) for name in CHECKS]
    warnings = [dg.AssetCheckKey(names.key(key.asset_key.path[-1]), key.name) for key in (*WARNING_KEYS, REASONS_KEY)]
    checks = dg.AssetSelection.checks(*before_publishing, *warnings)
    weekly_refresh = dg.define_asset_job(
        names.of(JOB),
        selection=dg.AssetSelection.assets(*keys).without_checks() | checks,
        executor_def=dg.in_process_executor,
        description=(
            "The whole of a week: ingest it, retrain on it, publish every user's top five for the week after, and "
            "score last week's lists on it. Run weeks oldest first: each starts from the model of the week before."
        ),
    )
    observe_source = dg.define_asset_job(
        names.of(OBSERVE_JOB),
        selection=dg.AssetSelection.assets(names.key(LOG)),
        executor_def=dg.in_process_executor,
        tags={"dagster/max_runtime": 6 * 3600},  # seconds; no week is refreshed beside it
        description="Reads the source and notes which weeks are closed and which have changed. It changes no week.",
    )
    return [weekly_refresh, observe_source]
