"""What a week may cost: named configurations of encoder and ranker (docs/quality.md compares them)."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from tgn_assets.ml.config import GNNConfig, PresetName, RankerConfig

Config = TypeVar("Config", GNNConfig, RankerConfig)
Values = Mapping[str, Any]
"""Field -> value; of a nested configuration, again such a mapping."""

FAST: tuple[Values, Values] = (
    {"warm_epochs": 1, "linear": {"max_events": 1024}},
    {
        "networks": 1,
        "candidates": 40,
        "users_per_cutoff": 2048,
        "warm_epochs": 1,
        "epochs": 15,
        "lambdarank": {"rounds": 50, "max_pairs": 50_000},
        "calibration": {"users": 512},
    },
)
"""Fewer candidates, epochs, rounds, link vectors and users to learn from, and one network on every log."""
BEST: tuple[Values, Values] = ({}, {"networks": 6, "fit": {"pairs_per_epoch": 10**9}})
"""Six networks and six boosters on every log, averaged: `standard` has up to four where a log is small, else one."""
PRESETS: Mapping[PresetName, tuple[Values, Values]] = MappingProxyType(
    {"fast": FAST, "standard": ({}, {}), "best": BEST}
)
"""What each preset changes of the defaults of `GNNConfig` and of `RankerConfig`."""


def with_preset(config: Config, preset: PresetName) -> Config:
    """`config` with the values of a preset in each field that is at its default.

    The preset is that of the configuration, or `preset` where that is `auto`; the result names it. To set a field to
    just the default that a preset changes, take the preset `standard` and set the fields by hand.
    """
    name: PresetName = preset if config.preset == "auto" else config.preset
    values = PRESETS[name][isinstance(config, RankerConfig)]
    standard = type(config)().model_dump()
    return type(config).model_validate(_filled(config.model_dump(), values, standard) | {"preset": name})


def _filled(config: Values, values: Values, standard: Values) -> dict[str, Any]:
    filled = dict(config)
    for field, value in values.items():
        if isinstance(value, Mapping):
            filled[field] = _filled(config[field], value, standard[field])
        elif config[field] == standard[field]:
            filled[field] = value
    return filled
