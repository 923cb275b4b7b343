"""The launchpad's forms, made from the configuration of `ml`, which knows nothing of Dagster."""

from typing import Any

import dagster as dg
from pydantic import BaseModel, Field, create_model, model_validator


def launchpad_config(model: type[BaseModel]) -> type[dg.Config]:
    """A `dg.Config` with the fields of `model`: types, defaults, descriptions and constraints, nested models included.

    `model.model_validate(config.model_dump())` gives the plain configuration back; fields that do not fit each other
    are refused as by `model`.
    """

    def fit_each_other(form: dg.Config) -> dg.Config:
        model.model_validate(form.model_dump())
        return form

    fields: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            form = launchpad_config(field.annotation)
            default = form(**field.default.model_dump())
            fields[name] = form, Field(default=default, description=field.description)
        else:
            fields[name] = field.annotation, field
    validators: dict[str, Any] = {"fit_each_other": model_validator(mode="after")(fit_each_other)}
    return create_model(model.__name__, __base__=dg.Config, __doc__=model.__doc__, __validators__=validators, **fields)
