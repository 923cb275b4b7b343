"""Hands artifacts from asset to asset: one folder per asset and week, replaced as a whole, never pickled."""

import gc
from typing import Any

import dagster as dg

from tgn_assets.state.artifact_store import ArtifactStore
from tgn_assets.state.dagster_compat import PARTITION, forget_captured_outputs
from tgn_assets.state.lineage import digest_of_files
from tgn_assets.state.run_lock import RunLock
from tgn_assets.state.user_errors import as_dagster_failure
from tgn_assets.state.warehouse import Warehouse

EARLIER = "earlier"


class ArtifactIOManager(dg.ConfigurableIOManager):
    """Saves what an asset returns and loads what the next one takes, of the run's week.

    An input called `earlier` is of the week before: None if that was never materialized, or by a version with another
    format.

    Every asset has this IO manager, so every run of assets holds the run lock from its start to its end.
    """

    artifacts: dg.ResourceDependency[ArtifactStore]
    lock: dg.ResourceDependency[RunLock]
    warehouse: dg.ResourceDependency[Warehouse]
    keep_weeks: int | None = None
    """Weeks whose models are kept; None: all."""

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Mends what a killed run left; `lock` is held by now. Dagster calls it before each step of the run."""
        self.artifacts.sweep()
        self.artifacts.remove_old(self.keep_weeks, but=context.run.tags.get(PARTITION) if context.run else None)

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Saves the artifact `obj` of the run's week, and records what it was made from."""
        asset, week = _name(context), context.asset_partition_key
        with as_dagster_failure():
            self.artifacts.save(asset, week, obj)
        self.warehouse.record_made(asset, {week: digest_of_files(self.artifacts.directory(asset, week))})
        forget_captured_outputs(context)

    def load_input(self, context: dg.InputContext) -> Any:
        """The artifact that an input takes; Failure if it cannot be loaded."""
        from tgn_assets.ml.parallel import trim_malloc

        # Or this asset would need its memory on top of that of the last one in this process, whose value Dagster's
        # frames hold in a cycle. It is young: a whole collection would look at all that was ever imported.
        gc.collect(1)
        trim_malloc()
        with as_dagster_failure():
            asset = _name(context)
            if context.name != EARLIER:
                return self.artifacts.load(asset, context.asset_partition_key)
            for week in context.asset_partition_keys:  # none for the first week
                if not self.artifacts.is_outdated(asset, week):
                    return self.artifacts.load_weeks(asset, [week]).get(week)
                context.log.warning("%s of %s is left out: an earlier version wrote it", asset, week)
            return None


def _name(context: dg.OutputContext | dg.InputContext) -> str:
    return context.asset_key.path[-1]
