"""The jobs: the assets and checks of one run, which is for one week, and the observation of the source."""

import dagster as dg

from tgn_assets.assets.ingest import LOG
from tgn_assets.checks.future_leakage import PREDICTIONS
from tgn_assets.checks.monitoring import WARNING_KEYS
from tgn_assets.checks.reasons import REASONS_KEY
from tgn_assets.ml.recommend.publish_checks import CHECKS

BEFORE_PUBLISHING = [dg.AssetCheckKey(dg.AssetKey(PREDICTIONS), name) for name in CHECKS]

weekly_refresh = dg.define_asset_job(
    "weekly_refresh",
    selection=dg.AssetSelection.all().without_checks()
    | dg.AssetSelection.checks(*BEFORE_PUBLISHING, *WARNING_KEYS, REASONS_KEY),
    executor_def=dg.in_process_executor,
    description=(
        "The whole of a week: ingest it, retrain on it, publish every user's top five for the week after, and score "
        "last week's lists on it. Run weeks oldest first: each starts from the model of the week before."
    ),
)

observe_source = dg.define_asset_job(
    "observe_source",
    selection=dg.AssetSelection.assets(LOG),
    executor_def=dg.in_process_executor,
    tags={"dagster/max_runtime": 6 * 3600},  # seconds; no week is refreshed beside it
    description="Reads the source and notes which weeks are closed and which have changed. It changes no week.",
)
