"""The component of Dagster that puts the assets into a project of others: once for each log, beside its own assets."""

import re
import warnings
from pathlib import Path
from typing import Annotated, Any

import dagster as dg
from pydantic import ConfigDict, Field, SecretStr, create_model, model_validator

from tgn_assets.names import Names
from tgn_assets.settings import Settings, SettingsError, given_settings

DEFS_YAML = """\
type: {type}

attributes:
  # What all names begin with: asset keys, jobs, schedule, sensors. Another log needs another one.
  key_prefix: {name}
  # The folder of all state of this log, and of no other.
  home: "{{{{ context.project_root }}}}/.tgn/{name}"
  # A path, glob, folder or URL of CSV, JSON lines or Parquet, or postgresql://user@host/database with source_query.
  source: synthetic
  # user_column: user_id
  # event_column: item_id
  # timestamp_column: clicked_at
  # The first week, a Monday. With it, the definitions load before the log exists.
  # start_week: "2024-01-01"
  # Assets of this project that write the log.
  # deps: [{name}_log]
"""


class WeeklyTopKScaffolder(dg.Scaffolder):
    """Writes the `defs.yaml` of a new instance, named after its folder, on a log that it generates."""

    def scaffold(self, request: dg.ScaffoldRequest) -> None:
        """Writes the file; one in Python has no attributes to begin with."""
        if request.scaffold_format == "python":
            dg.scaffold_component(request, {})
            return
        folder = request.target_path.parent if request.append else request.target_path
        name = "_".join(re.findall("[A-Za-z0-9]+", folder.name)) or "log"
        text = DEFS_YAML.format(type=request.type_name, name=name)
        if request.append:
            with request.target_path.open("a", encoding="utf-8") as file:
                file.write(f"---\n{text}")
        else:
            (folder / "defs.yaml").write_text(text, "utf-8")


def _attributes() -> dict[str, Any]:
    """A field for each setting, with its type, default and description; its bounds are checked by `given_settings`."""
    fields: dict[str, Any] = {}
    plain: dict[Any, Any] = {Path: str, SecretStr | None: str | None}
    for name, setting in Settings.model_fields.items():
        kind: Any = plain.get(setting.annotation, setting.annotation)
        # Dagster drops the description of a field that has a default.
        described = Annotated[kind, dg.Resolver.default(description=setting.description)]
        default = ... if name == "home" else setting.default  # two instances would have the same one
        fields[name] = described, Field(default=default, repr=setting.repr)
    return fields


_SettingsAttributes = create_model("_SettingsAttributes", __base__=dg.Model, **_attributes())


@dg.scaffold_with(WeeklyTopKScaffolder)
class WeeklyTopK(dg.Component, _SettingsAttributes, dg.Resolvable):
    """Every user's top-5 events for the next week, from a log of who interacted with what, retrained weekly.

    An instance has its own log, home, jobs, schedule and sensors. Attributes are settings of tgn_assets: where an error
    or a page of its documentation names TGN_SOURCE, that is the attribute `source`. The environment's TGN_* variables
    are not read.
    """

    model_config = ConfigDict(hide_input_in_errors=True)  # it may hold a password

    key_prefix: Annotated[
        str | list[str],
        dg.Resolver.default(
            description="What asset keys, jobs, schedule, sensors and resources begin with: `shop`, or `shop/eu`. Each "
            "instance needs its own."
        ),
    ]
    deps: Annotated[
        list[str],
        dg.Resolver.default(description="Keys of the project's assets that write the log, such as `shop/clicks`."),
    ] = []  # noqa: RUF012 (a field of pydantic's)

    @property
    def names(self) -> Names:
        """The names of the instance. ValueError if `key_prefix` cannot be one."""
        parts = self.key_prefix.split("/") if isinstance(self.key_prefix, str) else self.key_prefix
        if not parts:
            raise ValueError("key_prefix: it is empty; write a name, such as shop")
        try:
            return Names(tuple(parts))
        except ValueError as error:
            raise ValueError(f"key_prefix: {error}") from None

    @property
    def settings(self) -> Settings:
        """The settings that the attributes make. SettingsError, which names the attribute, if one cannot be used."""
        return given_settings({name: getattr(self, name) for name in Settings.model_fields})

    @model_validator(mode="after")
    def _usable(self) -> "WeeklyTopK":
        _ = self.names, self.settings
        return self

    @classmethod
    def get_spec(cls) -> dg.ComponentTypeSpec:
        """What `dg list components` shows."""
        return dg.ComponentTypeSpec(tags=["recommendations"])

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The assets, checks, jobs, schedule, sensors and resources of the instance.

        SettingsError if another instance has the same home, or if the first week of the log is not known: it is read
        for that once, unless `start_week` names it.
        """
        from tgn_assets.definitions import prefixed_definitions
        from tgn_assets.ml.sources.spec import SourceError

        settings = self.settings
        in_project = context.path != context.defs_module_path  # or there are no others: it is loaded by itself
        for other in context.component_tree.get_all_components(WeeklyTopK) if in_project else ():
            if other.names != self.names and other.settings.home == settings.home:
                raise SettingsError(f"home: {settings.home} is that of {other.key_prefix} as well; each needs its own")
        # Of one week a run in any case, as the strictest policy wants it.
        warnings.filterwarnings("ignore", message=f"Asset job {self.names.of('weekly_refresh')} materializes")
        try:
            return prefixed_definitions(settings, self.names, [dg.AssetKey.from_user_string(key) for key in self.deps])
        except SourceError as error:
            raise SettingsError(
                f"the first week of the log is not known yet: set start_week to its Monday, and the definitions load "
                f"before the log can be read ({error})"
            ) from error
