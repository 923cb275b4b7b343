"""The Dagster resources of assets and checks: warehouse, artifacts, source, device, policy, attribute files."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import pandas as pd
from pydantic import BaseModel

from tgn_assets.ml.config import PresetName
from tgn_assets.ml.data.attribute_files import read_attribute_tables
from tgn_assets.ml.data.attributes import AttributeTables
from tgn_assets.ml.data.policy import Policy
from tgn_assets.ml.data.policy_files import read_policy
from tgn_assets.ml.forgotten import ForgottenIds
from tgn_assets.ml.presets import Config, with_preset
from tgn_assets.ml.progress import LogFn
from tgn_assets.ml.recommend.words import Words
from tgn_assets.ml.schema import EVENT
from tgn_assets.ml.sources.spec import SourceSpec
from tgn_assets.state.artifact_store import ArtifactStore
from tgn_assets.state.home import FORGOTTEN, Home
from tgn_assets.state.io_managers import ArtifactIOManager
from tgn_assets.state.lineage import digest_of
from tgn_assets.state.run_lock import RunLock
from tgn_assets.state.user_errors import as_dagster_failure
from tgn_assets.state.warehouse import Warehouse

if TYPE_CHECKING:
    from tgn_assets.ml.parallel import Workers


class WarehouseResource(dg.ConfigurableResource[Warehouse]):
    """The DuckDB file at `path`."""

    path: str

    def create_resource(self, context: dg.InitResourceContext) -> Warehouse:  # noqa: ARG002 (Dagster's signature)
        """The warehouse."""
        return Warehouse(Path(self.path))


class ArtifactsResource(dg.ConfigurableResource[ArtifactStore]):
    """Snapshots, checkpoints and embeddings under the folder `root`."""

    root: str

    def create_resource(self, context: dg.InitResourceContext) -> ArtifactStore:  # noqa: ARG002 (as above)
        """The store."""
        return ArtifactStore(Path(self.root))


class ReportsFolder(dg.ConfigurableResource):
    """The folder `root` of the weekly reports, and the address at which browsers find it, if there is one."""

    root: str
    url: str | None = None


class Device(dg.ConfigurableResource):
    """The device that models are trained on."""

    setting: str

    def name(self) -> str:
        """`cpu`, `cuda`, ...; for `auto`, a GPU if there is one. Failure if torch cannot use the device."""
        from tgn_assets.ml.parallel import device_name

        try:
            return device_name(self.setting)
        except ValueError as error:
            raise dg.Failure(f"TGN_DEVICE={error}") from error


class WorkersSetting(dg.ConfigurableResource):
    """What works through the users: threads, or a cluster of Ray."""

    address: str | None = None
    task_shards: int

    def start(self, device: str, log: LogFn) -> "Workers":
        """The engine, which tells `log` what goes wrong; WorkersError if there is none, or it cannot use `device`."""
        from tgn_assets.ml.parallel import THREADS, WorkersError

        if not self.address:
            return THREADS
        if device != "cpu":
            raise WorkersError(f"Ray's workers compute on processors, not on {device}: set TGN_DEVICE=cpu")
        try:
            from tgn_assets.ray_tasks import RayTasks
        except ModuleNotFoundError as error:
            raise WorkersError(
                f"TGN_WORKERS needs {error.name}: run pip install -c constraints.txt -e '.[ray]', or unset it"
            ) from error
        return RayTasks(self.address, shards_per_task=self.task_shards, log=log)


class TrainingDefaults(dg.ConfigurableResource):
    """What a training takes from the settings, where the launchpad leaves it open."""

    preset: PresetName
    batching: str
    sampler: str

    def resolve(self, form: BaseModel, model: type[Config]) -> Config:
        """The `model` that the launchpad's `form` describes, with what it leaves `auto` or at its default filled in."""
        given = form.model_dump()
        given |= {name: value for name, value in self if given.get(name) == "auto"}
        return with_preset(model.model_validate(given), self.preset)


class PolicyFiles(dg.ConfigurableResource):
    """The policy, whose files are read by each run that needs it: the fields are settings, but for `null_words`, which
    are those of `null_values`, and `forgotten`."""

    k: int
    repeats: str
    allow_events: str | None = None
    deny_events: str | None = None
    event_expiry: str | None = None
    min_distinct_events: int
    max_silent_weeks: int | None = None
    null_words: list[str]
    forgotten: str | None = None
    """The list of forgotten ids."""

    def read(self) -> Policy:
        """The policy as it is in the files now, but for forgotten events; PolicyError if one of them cannot be used."""
        policy = self._read()
        forgotten = ForgottenIds.load(Path(self.forgotten) if self.forgotten else None)
        return policy.without(lambda event: forgotten.holds(EVENT, event)) if forgotten else policy

    def digest(self, week: str) -> str:
        """Of the policy for lists made at the close of `week`. A forgotten event is no reason to make them again.

        Ask for it before `read`: if a file changes in between, the lists are made again. PolicyError as of `read`.
        """
        return digest_of(self._read().as_of(week).to_json().encode())

    def _read(self) -> Policy:
        given = {name: value for name, value in self if name not in ("forgotten", "null_words")}
        return read_policy(**given, null_values=self.null_words)


class ReasonWords(dg.ConfigurableResource):
    """The words that reasons are written in."""

    nouns: str

    def words(self) -> Words:
        """The words."""
        return Words.parse(self.nouns)


class EvaluationUsers(dg.ConfigurableResource):
    """How many of a week's active users baselines and diagnostics are computed for; 0: everybody."""

    number: int


class AttributeFiles(dg.ConfigurableResource):
    """The attribute tables of events and users, whose files are read by each run that needs them."""

    event_features: str | None = None
    user_features: str | None = None
    null_words: list[str]

    def read(self, users: pd.DataFrame, events: pd.DataFrame, week: str) -> AttributeTables:
        """The tables as of the close of `week`, for its nodes `users` and `events` (`read_nodes`).

        AttributeTableError if one of them cannot be used.
        """
        files = self.event_features, self.user_features
        return read_attribute_tables(*files, users, events, week, null_values=self.null_words)


def policy_files(home: Home) -> PolicyFiles:
    """The policy of `home`."""
    settings = home.settings.model_dump(include=set(PolicyFiles.model_fields))
    words = list(home.settings.null_words())
    return PolicyFiles(**settings, null_words=words, forgotten=str(home.root / FORGOTTEN))


def attribute_files(home: Home) -> AttributeFiles:
    """The attribute files of `home`."""
    settings = home.settings.model_dump(include=set(AttributeFiles.model_fields))
    return AttributeFiles(**settings, null_words=list(home.settings.null_words()))


def build_resources(home: Home, source: SourceSpec | None) -> dict[str, Any]:
    """The resources of all assets and checks, by key, for the state under `home`.

    Without a `source`, that of `home` is read once a run needs it: the log may not be there before.
    """

    @dg.resource(description="The interaction log to ingest.")
    def log() -> SourceSpec:
        with as_dagster_failure():
            return source or home.source_spec()

    settings = home.settings
    artifacts = ArtifactsResource(root=str(home.artifacts))
    warehouse = WarehouseResource(path=str(home.warehouse_path))
    lock = RunLock(path=str(home.run_lock))
    return {
        "warehouse": warehouse,
        "artifacts": artifacts,
        "io_manager": ArtifactIOManager(
            artifacts=artifacts, lock=lock, warehouse=warehouse, keep_weeks=settings.keep_weeks
        ),
        "source": log,
        "policy": policy_files(home),
        "attribute_files": attribute_files(home),
        "reason_words": ReasonWords(nouns=settings.nouns),
        "evaluation_users": EvaluationUsers(number=settings.evaluation_users),
        "reports": ReportsFolder(root=str(home.reports), url=settings.reports_url),
        "device": Device(setting=settings.device),
        "workers": WorkersSetting(address=settings.workers, task_shards=settings.task_shards),
        "defaults": TrainingDefaults(**settings.model_dump(include=set(TrainingDefaults.model_fields))),
    }
