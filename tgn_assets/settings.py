"""The settings of a deployment, from the environment (`TGN_HOME`, `TGN_SOURCE`, ...) and from a `.env` file."""

import os
import re
from collections.abc import Mapping
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from dotenv import dotenv_values
from dotenv.parser import parse_stream
from pydantic import SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from tgn_assets import setting_values as values
from tgn_assets.ml.config import Batching, PresetName, SamplerName, option
from tgn_assets.ml.connectors.object_store import is_url
from tgn_assets.ml.connectors.postgres import is_postgres
from tgn_assets.ml.recommend.words import NOUNS
from tgn_assets.ml.safe_text import SafeError, safe_error, shortened
from tgn_assets.ml.sources.spec import NULL_VALUES

PREFIX, ENV_FILE = "TGN_", ".env"


class SettingsError(SafeError, ValueError):
    """A setting that cannot be used; the message names the environment variable."""


Week = Annotated[str | None, values.checked(values.monday)]


class Settings(BaseSettings):
    """A deployment: the folder of its state, the log it reads, the weeks it covers, and its policy."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=ENV_FILE,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        validate_default=True,
        hide_input_in_errors=True,  # it may hold a password
    )

    home: Annotated[Path, values.checked(values.home_folder)] = option(
        Path(".tgn"), "Folder of all state: warehouse, artifacts, Dagster's history."
    )
    source: Annotated[str, values.checked(values.source)] = option(  # its URL may hold a token
        "synthetic",
        "`synthetic`, or a path, glob, folder or URL of CSV, JSON lines or Parquet, or "
        "`postgresql://user@host:port/database`.",
        repr=False,
    )
    source_query: Annotated[str | None, values.checked(values.table_or_select)] = option(
        None, "For a PostgreSQL source: the name of a table or view, or a SELECT."
    )
    user_column: str = option("ip_address", "Column of the source that names the user.")
    event_column: str = option("event_id", "Column of the source that names the event.")
    timestamp_column: str = option(
        "timestamp",
        "Column with the time: ISO text, a timestamp type, a unix time (seconds to nanoseconds), or a day such as "
        "20240131.",
    )
    timestamp_format: Annotated[str | None, values.checked(values.of_strptime)] = option(
        None, "How times are written, as strptime has it, if they are none of these: `%d.%m.%Y %H:%M`."
    )
    time_zone: Annotated[str | None, values.checked(values.known_zone)] = option(
        None, "IANA name of the zone of times without an offset, such as `Europe/Berlin`; default: UTC."
    )
    null_values: str = option(
        ",".join(NULL_VALUES),
        "Ids and times that count as missing, separated by commas, as empty ones do; `,` for none else.",
    )
    row_filter: str | None = option(
        None, "SQL condition on the columns of the source, such as `event_type = 'click'`: other rows are ignored."
    )
    start_week: Week = option(None, "Monday of the first week; default: the first one in the source.")
    end_week: Week = option(None, "Monday of the last week; default: none, every week that closes is added.")
    device: str = option("auto", "`auto` (a GPU if there is one), `cpu`, `cuda`, `cuda:1`, ...")
    batching: Batching = option(
        "auto",
        "How the encoder goes through a graph: `full` (all of it at once), `sampled` (batches of sampled "
        "neighbourhoods) or `auto` (`full` up to an estimate of 6 GiB of memory, else `sampled`). The launchpad's "
        "`batching` wins where it is not `auto`.",
    )
    sampler: SamplerName = option(
        "auto",
        "What draws the neighbours of sampled batches: `native`, `torch-sparse`, `pyg-lib`, or `auto` (a compiled "
        "one if one is installed). The launchpad's `sampler` wins where it is not `auto`.",
    )
    preset: PresetName = option(
        "standard",
        "What a week may cost: `fast`, `standard` or `best` (docs/quality.md compares them). A field of the "
        "launchpad that is not at its default wins.",
    )
    workers: str | None = option(
        None,
        "What works through the users: threads of the run's process (empty), `ray` (a Ray cluster of this machine "
        "that lasts as long as the run) or the address of a cluster of Ray. It needs the extra `[ray]`.",
    )
    task_shards: int = option(
        4, "Shards of users (each of 256 to 4,096, by step) in one task of Ray: fewer need less memory.", ge=1
    )
    owner: Annotated[str, values.checked(values.email_or_team)] = option(
        "team:recommendations", "The owner of the assets in the UI: an e-mail address, or `team:` and a name."
    )
    k: int = option(5, "Events in a list.", ge=1, le=100)
    repeats: Literal["learned", "exclude"] = option(
        "learned",
        "`learned`: the ranker decides about events that the user interacted with before; `exclude`: they are not "
        "recommended.",
    )
    allow_events: str | None = option(
        None, "Only these events are recommended: ids separated by commas, or a file with one per line."
    )
    deny_events: str | None = option(
        None, "These events are never recommended: ids separated by commas, or a file with one per line."
    )
    event_expiry: str | None = option(
        None,
        "CSV or Parquet file with `event_id` and `expires_at`: an event that has expired when the target week starts "
        "is not recommended for it.",
    )
    min_distinct_events: int = option(
        0,
        "The least number of different events on all lists of a week; last places are replaced until they have it.",
        ge=0,
    )
    max_silent_weeks: int | None = option(
        None,
        "Users without an interaction in the week and this many weeks before it get no list of their own; default: "
        "every user gets one. 0: only users of the week itself.",
        ge=0,
        le=5000,
    )
    nouns: Annotated[str, values.checked(values.three_words)] = option(
        NOUNS,
        "The words of reasons for a user, an event, and what users did with it, such as `customer,product,bought`.",
    )
    evaluation_users: int = option(
        50_000,
        "Published lists are scored with all active users, baselines and diagnostics with so many of them, drawn by "
        "a hash of week and id; 0: with all of them.",
        ge=0,
    )
    event_features: str | None = option(
        None,
        "CSV or Parquet file with `event_id` and attributes of the event: category, price, date. With a column "
        "`valid_from`, a row is used from that time on.",
    )
    user_features: str | None = option(None, "The same for users, with `user_id`: town, plan, date of joining.")
    export_parquet: Annotated[str | None, values.checked(values.parquet_location)] = option(  # as that of `source`
        None,
        "Folder, or `s3://bucket/prefix`, to which every week's lists and metrics are also written, as Parquet in "
        "hive partitions.",
        repr=False,
    )
    export_postgres: Annotated[str | None, values.checked(values.postgres_location)] = option(
        None,
        "`postgresql://user@host:port/database?schema=name`, to whose tables every week's lists and metrics are also "
        "written.",
    )
    alert_url: Annotated[str | None, values.checked(values.web_address)] = option(  # whoever knows it may post to it
        None,
        'URL of a webhook that gets `{"text": ...}` by POST when a run fails, the source cannot be read twice in a '
        "row, or the newest week has no lists by Monday 12:00 UTC. A daemon must run.",
        repr=False,
    )
    serve_token: Annotated[SecretStr | None, values.checked(values.long_enough)] = option(
        None,
        "What `tgn serve` asks for as `Authorization: Bearer ...`: 16 characters or more, of those that a header may "
        "have.",
    )
    reports_url: Annotated[str | None, values.checked(values.shown_address)] = option(
        None,
        "Address at which browsers find the folder `reports` of TGN_HOME, such as that of `tgn serve` with "
        "`/reports` behind it: the UI links to the weekly pages there. `tgn dev` serves them itself if it is not "
        "set.",
    )
    keep_weeks: int | None = option(
        None,
        "Weeks whose models are kept, and all since a pinned one; older ones are removed when a run starts. Default: "
        "all. It must be more than `origins` + `sequence` of the ranker.",
        ge=26,
        le=5000,
    )
    keep_run_days: int | None = option(
        None,
        "Days for which Dagster's history of runs is kept; default: all. Ticks: see `retention` in `dagster.yaml`.",
        ge=7,
        le=5000,
    )
    future_blind: bool = option(
        False,
        "Adds the check future_blind. When weekly_top5_predictions of a past week is materialized from its page, the "
        "week is computed again as if no later week existed, and compared byte by byte.",
    )

    def null_words(self) -> tuple[str, ...]:
        """The parts of `null_values`."""
        return tuple(filter(None, map(str.strip, self.null_values.split(","))))

    def export_locations(self) -> dict[str, str]:
        """Destination -> where it writes, for those that are set (`ml.export.destinations`)."""
        fields = {name: getattr(self, name) for name in type(self).model_fields if name.startswith("export_")}
        return {name.removeprefix("export_"): location for name, location in fields.items() if location}

    @model_validator(mode="after")
    def _ordered(self) -> "Settings":
        if self.start_week and self.end_week and self.end_week < self.start_week:
            raise ValueError(f"TGN_END_WEEK={self.end_week} comes before TGN_START_WEEK={self.start_week}")
        if is_postgres(self.source) and not self.source_query:
            raise ValueError(f"TGN_SOURCE={self.source} needs TGN_SOURCE_QUERY, the name of a table or a SELECT")
        exports = {f"TGN_EXPORT_{name.upper()}": location for name, location in self.export_locations().items()}
        for name, location in {"TGN_HOME": str(self.home), **exports}.items():
            if _is_read_with(self.source, location):
                raise ValueError(
                    f"{name}={location} lies in the folder TGN_SOURCE, all of whose files are read: move it out"
                )
        if self.source_query and not is_postgres(self.source):
            raise ValueError(f"TGN_SOURCE_QUERY is for a PostgreSQL source; TGN_SOURCE={self.source} is none")
        return self


def _is_read_with(source: str, location: str) -> bool:
    """Whether `location` is in the folder `source`, or is that folder, and its name does not hide it."""
    folder = Path(source).expanduser()
    if is_url(source) or is_url(location) or not folder.is_dir() or not Path(location).is_relative_to(folder.resolve()):
        return False
    return not any(part.startswith((".", "_")) for part in Path(location).relative_to(folder.resolve()).parts)


def given_settings(values: Mapping[str, Any]) -> Settings:
    """The settings `values`, by field, whatever the environment says; SettingsError names the field and the reason."""
    try:
        return Settings(_env_file=None, _env_prefix="\0", **values)  # no variable has such a name
    except ValidationError as error:
        reasons = re.sub(rf"\b{PREFIX}([A-Z_]+)", lambda variable: variable[1].lower(), _reasons(error))
        raise SettingsError(reasons) from safe_error(error)


def env_files() -> tuple[Path | None, Path | None]:
    """The file `.env` that is read, and the nearest one in a folder above, which is not; None where there is none."""
    here = Path.cwd()
    above = next((file for folder in here.parents if (file := folder / ENV_FILE).is_file()), None)
    return (here / ENV_FILE if (here / ENV_FILE).is_file() else None), above


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The settings of this process, read once; SettingsError if one of them cannot be used."""
    return read_settings()


def read_settings() -> Settings:
    """The settings as the environment and `.env` have them now; SettingsError names the variable and the reason."""
    try:
        if Path(ENV_FILE).is_dir():  # Docker makes one where the file that it is to mount is missing
            raise SettingsError(
                f"{Path.cwd() / ENV_FILE} is a folder and should be a file: remove it, or mount the file"
            )
        if Path(ENV_FILE).exists() and not Path(ENV_FILE).is_file():
            raise SettingsError(f"{Path.cwd() / ENV_FILE} is a pipe, and is read more than once: make it a file")
        _reject_misspelt()
        _reject_unparsed()
        _reject_empty()
        return Settings()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{Path.cwd() / ENV_FILE} cannot be read as text in UTF-8: {error}") from safe_error(error)
    except ValidationError as error:
        raise SettingsError(_reasons(error)) from safe_error(error)


def _reasons(error: ValidationError) -> str:
    """The variable and the reason of each error."""
    found = [(f"{PREFIX}{item['loc'][0]}: ".upper() if item["loc"] else "", item["msg"]) for item in error.errors()]
    return "; ".join(name + reason.removeprefix("Value error, ") for name, reason in found)


def _reject_misspelt() -> None:
    """SettingsError for a misspelt name, which would otherwise be ignored."""
    for name in unknown_settings():
        if similar := get_close_matches(name, _variables(), n=1, cutoff=0.85):
            raise SettingsError(f"{name} is not a setting; did you mean {similar[0]}?")


def _reject_unparsed() -> None:
    """SettingsError for a line of `.env` that would be ignored: `TGN_SOURCE: log.csv`, a quote that does not end."""
    if not Path(ENV_FILE).is_file():
        return
    with open(ENV_FILE, encoding="utf-8") as lines:
        for binding in parse_stream(lines):
            text = binding.original.string.strip()
            if text.startswith(PREFIX) and (binding.error or binding.value is None):
                line = f"{Path.cwd() / ENV_FILE}, line {binding.original.line}"
                raise SettingsError(f"{line}: {shortened(text, 40)!r} is not NAME=value, or a quote does not end")


def _reject_empty() -> None:
    """SettingsError for a log or a home that is set and empty: a variable of a shell or of Docker was not set."""
    in_file = dotenv_values(ENV_FILE)
    for name, unset in ((f"{PREFIX}SOURCE", "the synthetic log"), (f"{PREFIX}HOME", "the folder .tgn")):
        if (name in os.environ or name in in_file) and not (os.environ.get(name) or in_file.get(name)):
            raise SettingsError(f"{name} is set and empty; name one, or unset it for {unset}")


def unknown_settings() -> list[str]:
    """Variables of the environment and `.env` that are called like a setting and are none: nothing reads them."""
    return sorted({name for name in (*os.environ, *dotenv_values(ENV_FILE)) if name.startswith(PREFIX)} - _variables())


def _variables() -> set[str]:
    return {PREFIX + name.upper() for name in Settings.model_fields}
