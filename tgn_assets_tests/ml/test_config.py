"""Configurations that cannot be meant are refused, with the names of the fields."""

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from tgn_assets.assets.training import GNNParameters, RankerParameters
from tgn_assets.ml.config import GNNConfig, RankerConfig


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"layers": 3}, "fan_out holds one number for each of layers = 3, not \\[15, 10\\]"),
        ({"fan_out": []}, "fan_out holds one number for each of layers = 2, not \\[\\]"),
        ({"fan_out": [15, 0]}, "fan_out.1\n.*0 is neither from 1 to 10,000 nor -1"),
        ({"fan_out": [-2, 10]}, "fan_out.0\n.*-2 is neither"),
        ({"epochs": 0}, "epochs\n"),
        ({"learning_rate": float("nan")}, "learning_rate\n"),
        ({"half_life": float("inf")}, "half_life\n"),
        ({"seed": -1}, "seed\n"),
        ({"features": {"recent_half_lives": [0.3, -1.0]}}, "features.recent_half_lives.1\n"),
        ({"features": {"recent_half_lives": [0.3, 0.3]}}, "features.recent_half_lives\n.*not distinct"),
        ({"loss": {"drawn_events": 0}}, "loss.drawn_events\n"),
    ],
)
@pytest.mark.parametrize("form", [GNNConfig, GNNParameters])
def test_encoder_config_that_cannot_be_meant_names_fields(
    form: type[BaseModel], fields: dict[str, Any], named: str
) -> None:
    with pytest.raises(ValidationError, match=named):
        form(**fields)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"heads": 3}, "heads = 3 do not divide dim = 64"),
        ({"dim": 30}, "heads = 4 do not divide dim = 30"),
        ({"networks": 0}, "networks\n"),
        ({"features": {"trend_half_lives": [[1.0, 0.15]]}}, "features.trend_half_lives.0\n.*not the shorter one"),
        ({"features": {"trend_half_lives": [[1.0]]}}, "features.trend_half_lives.0\n"),
        ({"features": {"popularity_half_lives": [0.0]}}, "features.popularity_half_lives.0\n"),
        ({"fit": {"warm_step": 1.5}}, "fit.warm_step\n"),
        ({"lambdarank": {"num_leaves": 1}}, "lambdarank.num_leaves\n"),
    ],
)
@pytest.mark.parametrize("form", [RankerConfig, RankerParameters])
def test_ranker_config_that_cannot_be_meant_names_fields(
    form: type[BaseModel], fields: dict[str, Any], named: str
) -> None:
    with pytest.raises(ValidationError, match=named):
        form(**fields)


def test_fields_that_fit_each_other_are_taken() -> None:
    assert GNNParameters(layers=3, fan_out=[-1, 5, 5]).fan_out == [-1, 5, 5]
    assert RankerParameters(dim=30, heads=5).heads == 5


def numbers(config: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """The numeric fields of `config` under dotted names, those of nested configurations included."""
    for name, field in config.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from numbers(field.annotation, f"{prefix}{name}.")
        elif field.annotation in (int, float):
            yield prefix + name, field


@pytest.mark.parametrize("config", [GNNConfig, RankerConfig])
def test_every_number_is_bounded_from_both_sides(config: type[BaseModel]) -> None:
    found = dict(numbers(config))
    assert len(found) > 20
    for name, field in found.items():
        bounds = {
            attribute for rule in field.metadata for attribute in ("ge", "gt", "le", "lt") if hasattr(rule, attribute)
        }
        assert bounds & {"ge", "gt"} and bounds & {"le", "lt"}, name
        assert field.annotation is int or any(
            getattr(rule, "allow_inf_nan", None) is False for rule in field.metadata
        ), name
