"""Presets fill in what was left at its default, and nothing else."""

from typing import Any

import pytest

from tgn_assets.ml.config import BlendConfig, GNNConfig, PresetName, RankerConfig, flatten
from tgn_assets.ml.presets import PRESETS, with_preset

EVERY = [(preset, model) for preset in PRESETS for model in (GNNConfig, RankerConfig)]


@pytest.mark.parametrize(("preset", "model"), EVERY)
def test_preset_changes_exactly_the_fields_that_it_names(preset: PresetName, model: Any) -> None:
    standard = flatten(model().model_dump())
    settled = flatten(with_preset(model(), preset).model_dump())
    changed = {name: value for name, value in settled.items() if value != standard[name]}
    assert changed == flatten(PRESETS[preset][model is RankerConfig]) | {"preset": preset}


def test_field_that_was_set_wins_over_the_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"epochs": 3, "blend": {"tree_weight": 2.0, "contenders": 60}}
    monkeypatch.setattr("tgn_assets.ml.presets.PRESETS", {"fast": ({}, values)})
    settled = with_preset(RankerConfig(epochs=7, blend=BlendConfig(contenders=50)), "fast")
    assert (settled.epochs, settled.blend.contenders, settled.blend.tree_weight) == (7, 50, 2.0)


def test_preset_of_the_launchpad_wins_over_the_setting() -> None:
    assert with_preset(RankerConfig(preset="standard"), "fast") == RankerConfig(preset="standard")
    assert with_preset(GNNConfig(preset="fast"), "best") == with_preset(GNNConfig(), "fast")
