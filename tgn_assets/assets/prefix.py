"""The assets, checks and resources of a deployment that shares its code location with others: all renamed."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import dagster as dg

from tgn_assets.assets.interaction_log import LOG
from tgn_assets.names import Names
from tgn_assets.state.dagster_compat import renamed


def with_names(names: Names, definitions: Mapping[str, Any], deps: Sequence[dg.AssetKey]) -> dict[str, Any]:
    """`definitions`, arguments of `dg.Definitions`, whose assets, checks, ops, groups and resources have `names`.

    The log depends on the assets `deps`.
    """
    plain = [key for asset in definitions["assets"] for key in asset.keys]
    keys = {key: names.key(key.path[-1]) for key in plain}
    rename = partial(renamed, keys=keys, name=names.of, resources=definitions["resources"].keys())

    def entry(spec: dg.AssetSpec) -> dg.AssetSpec:
        more = [dg.AssetDep(key) for key in deps] if spec.key == names.key(LOG) else []
        return spec.replace_attributes(group_name=names.of(spec.group_name or ""), deps=[*spec.deps, *more])

    return {
        **definitions,
        "assets": [rename(asset).map_asset_specs(entry) for asset in definitions["assets"]],
        "asset_checks": [rename(check) for check in definitions["asset_checks"]],
        "resources": {names.of(key): resource for key, resource in definitions["resources"].items()},
    }
