"""The code location: everything that Dagster shows and runs, assembled from the other modules."""

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import dagster as dg

from tgn_assets.assets import ingest, recommendations, training, weekly_report
from tgn_assets.assets.catalog import for_deployment
from tgn_assets.assets.exports import export_asset
from tgn_assets.assets.interaction_log import interaction_log_asset
from tgn_assets.assets.partitions import weekly_partitions
from tgn_assets.assets.prefix import with_names
from tgn_assets.assets.recommendations import predictions_asset
from tgn_assets.automation.alerts import failed_runs_sensor, overdue_lists_sensor
from tgn_assets.automation.jobs import jobs_of
from tgn_assets.automation.schedules import weekly_refresh_schedule
from tgn_assets.automation.sensors import missing_or_changed_weeks_sensor
from tgn_assets.checks.freshness import published_in_time_check
from tgn_assets.checks.future_leakage import future_blind_check
from tgn_assets.checks.monitoring import monitoring_checks
from tgn_assets.checks.reasons import reasons_are_true_check
from tgn_assets.ml.sources.spec import SourceSpec
from tgn_assets.names import Names
from tgn_assets.settings import Settings, get_settings
from tgn_assets.state.home import Home
from tgn_assets.state.process import prepare_process
from tgn_assets.state.resources import build_resources


def build_definitions(settings: Settings) -> dg.Definitions:
    """Everything that Dagster shows and runs for the deployment that the environment describes.

    Reads the source once, for its first week, unless `settings` or an earlier start names it: SourceError if it cannot.
    """
    home = Home(settings)
    return dg.Definitions(
        **_definitions(home, home.source_spec()),
        executor=dg.in_process_executor,  # one process per run: each further one would import torch again
    )


def prefixed_definitions(settings: Settings, names: Names, deps: Sequence[dg.AssetKey]) -> dg.Definitions:
    """The same for a deployment beside others in one code location, all of it called as `names` has it.

    The log depends on the assets `deps`. It is read here only for its first week, and where `settings` or an earlier
    start name that, not at all: SourceError if it cannot be read.
    """
    home = Home(settings, names)
    return dg.Definitions(**with_names(home.names, _definitions(home, None), deps))


def _definitions(home: Home, source: SourceSpec | None) -> dict[str, Any]:
    """The arguments of `dg.Definitions` for `home`: all but assets, checks and resources with its names."""
    settings = home.settings
    weeks = weekly_partitions(home.start_week(), settings.end_week)
    assets = for_deployment(
        [
            *assets_of(ingest, training, recommendations, weekly_report),
            predictions_asset(weeks),
            *(export_asset(name, location) for name, location in settings.export_locations().items()),
        ],
        weeks,
        owner=settings.owner,
        reports_url=settings.reports_url,
    )
    observed = for_deployment([interaction_log_asset(home)], None, owner=settings.owner)
    checks = [*monitoring_checks(weeks), reasons_are_true_check(weeks)]
    jobs = jobs_of(home.names, assets)
    sensors = [missing_or_changed_weeks_sensor(home, jobs)]
    if settings.future_blind:
        checks.append(future_blind_check(assets, weeks, home))
    if settings.end_week is None:
        checks.append(published_in_time_check(home))
        sensors.append(overdue_lists_sensor(home))
    if settings.alert_url:
        sensors.append(failed_runs_sensor(home))
    return {
        "assets": [*observed, *assets],
        "asset_checks": checks,
        "jobs": jobs,
        "schedules": [weekly_refresh_schedule(home, jobs[0])],
        "sensors": sensors,
        "resources": build_resources(home, source),
    }


def assets_of(*modules: ModuleType) -> list[dg.AssetsDefinition]:
    """The assets that are defined at the top of `modules`."""
    return [value for module in modules for value in vars(module).values() if isinstance(value, dg.AssetsDefinition)]


@dg.definitions
def defs() -> dg.Definitions:
    """What `workspace.yaml` and `[tool.dg]` load: the deployment that the environment describes.

    Dagster's code server calls it, and so does the process of each run, before torch is loaded.
    """
    prepare_process()
    return build_definitions(get_settings())
