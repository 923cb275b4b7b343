import dagster as dg
import pytest
from pydantic import BaseModel, Field, ValidationError

from tgn_assets.assets.launchpad import launchpad_config
from tgn_assets.assets.training import RankerParameters
from tgn_assets.ml.config import RankerConfig


class Trees(BaseModel, frozen=True):
    """Gradient boosting."""

    rounds: int = Field(default=100, ge=1, description="Trees.")


class Training(BaseModel, frozen=True):
    """How to train."""

    seed: int = Field(default=0, ge=0, description="Seed.")
    fan_out: list[int] = Field(default=[15, 10], description="Neighbours.")
    trees: Trees = Field(default=Trees(rounds=50), description="Boosting.")


def test_a_form_has_the_fields_defaults_and_descriptions_of_the_model() -> None:
    fields = launchpad_config(Training).to_fields_dict()
    assert {name: (field.default_value, field.is_required) for name, field in fields.items()} == {
        "seed": (0, False),
        "fan_out": ([15, 10], False),
        "trees": ({"rounds": 50}, False),
    }
    assert [fields[name].description for name in ("seed", "trees")] == ["Seed.", "Boosting."]
    nested = fields["trees"].config_type.fields["rounds"]  # type: ignore[attr-defined]  # a Shape
    assert (nested.description, nested.default_value) == ("Trees.", 50)


def test_a_form_gives_the_plain_model_back_and_keeps_constraints() -> None:
    form = launchpad_config(Training)
    assert Training.model_validate(form(trees={"rounds": 7}).model_dump()) == Training(trees=Trees(rounds=7))
    with pytest.raises(ValidationError, match=r"trees.rounds\n  Input should be greater than or equal to 1"):
        form(trees={"rounds": 0})


def test_a_run_sets_a_nested_field_of_the_ranker() -> None:
    read = list[RankerConfig]()

    @dg.asset
    def ranker(config: RankerParameters) -> None:
        read.append(RankerConfig.model_validate(config.model_dump()))

    run_config = {"ops": {"ranker": {"config": {"seed": 3, "lambdarank": {"rounds": 7}}}}}
    assert dg.materialize([ranker], run_config=run_config).success
    assert dg.materialize([ranker]).success
    lambdarank = RankerConfig().lambdarank.model_copy(update={"rounds": 7})
    assert read == [RankerConfig(seed=3, lambdarank=lambdarank), RankerConfig()]
