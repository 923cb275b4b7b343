"""The weekly job: what one run with one week does."""

import warnings

import dagster as dg

from tgn_assets.checks.future_leakage import PREDICTIONS
from tgn_assets.checks.monitoring import WARNING_KEYS
from tgn_assets.ml.recommend.publish_checks import CHECKS

# A job takes the strictest policy of its assets, here one week per run: meant, and no news at each start.
warnings.filterwarnings("ignore", message="Asset job weekly_refresh materializes assets with varying BackfillPolicies")

BEFORE_PUBLISHING = [dg.AssetCheckKey(dg.AssetKey(PREDICTIONS), name) for name in CHECKS]

weekly_refresh = dg.define_asset_job(
    "weekly_refresh",
    selection=dg.AssetSelection.all().without_checks() | dg.AssetSelection.checks(*BEFORE_PUBLISHING, *WARNING_KEYS),
    executor_def=dg.in_process_executor,
    description=(
        "The whole of a week: ingest it, retrain on it, publish every user's top five for the week after, and score "
        "last week's lists on it. Run weeks oldest first: each starts from the model of the week before."
    ),
)
