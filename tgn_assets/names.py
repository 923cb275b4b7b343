"""What Dagster calls the assets, jobs, sensors and resources of a deployment."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dagster import AssetKey

SEGMENT = re.compile(r"[A-Za-z0-9]+(_[A-Za-z0-9]+)*")


@dataclass(frozen=True)
class Names:
    """The names of one deployment, which all begin with its key prefix, if it has one.

    Deployments of one Dagster instance need different prefixes. ValueError if a part of the prefix is no name.

    >>> shop = Names(("shop", "eu"))
    >>> shop.key("eval_metrics").to_user_string(), shop.of("weekly_refresh"), Names().of("weekly_refresh")
    ('shop/eu/eval_metrics', 'shop__eu__weekly_refresh', 'weekly_refresh')
    """

    prefix: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for part in self.prefix:
            if not SEGMENT.fullmatch(part):
                raise ValueError(f"{part!r} is no name; write letters and digits, with single underscores between them")

    def key(self, asset: str) -> "AssetKey":
        """The key of the asset."""
        from dagster import AssetKey

        return AssetKey([*self.prefix, asset])

    def keys(self, assets: Iterable[str]) -> "list[AssetKey]":
        """The key of each asset."""
        return [self.key(asset) for asset in assets]

    def of(self, name: str) -> str:
        """The name of a job, schedule, sensor, op, resource or group that is called `name` without a prefix."""
        return "__".join([*self.prefix, name])


PLAIN = Names()
"""The names of the deployment that the environment describes."""
