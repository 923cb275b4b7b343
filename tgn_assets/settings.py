"""The settings of a deployment, from the environment (`TGN_HOME`, `TGN_SOURCE`, ...) and from a `.env` file."""

import os
import re
from collections.abc import Mapping
from datetime import date
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from dotenv import dotenv_values
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from tgn_assets.ml.config import Batching, SamplerName
from tgn_assets.ml.connectors.object_store import WEB, is_url
from tgn_assets.ml.connectors.postgres import is_postgres, refuse_password, relation
from tgn_assets.ml.recommend.words import NOUNS, Words
from tgn_assets.ml.safe_text import SafeError, holds_password, safe_error
from tgn_assets.ml.sources.spec import NULL_VALUES
from tgn_assets.ml.weeks import week_key, week_number

PREFIX, ENV_FILE = "TGN_", ".env"


class SettingsError(SafeError, ValueError):
    """A setting that cannot be used; the message names the environment variable."""


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

    home: Path = Field(
        default=Path(".tgn"), description="Folder of all state: warehouse, artifacts, Dagster's history."
    )
    source: str = Field(
        default="synthetic",
        repr=False,  # its URL may hold a token
        description="`synthetic`, or a path, glob, folder or URL of CSV, JSON lines or Parquet, or "
        "`postgresql://user@host:port/database`.",
    )
    source_query: str | None = Field(
        default=None, description="For a PostgreSQL source: the name of a table or view, or a SELECT."
    )
    user_column: str = Field(default="ip_address", description="Column of the source that names the user.")
    event_column: str = Field(default="event_id", description="Column of the source that names the event.")
    timestamp_column: str = Field(
        default="timestamp",
        description="Column with the time: ISO text, a timestamp type, a unix time (seconds to nanoseconds), or a day "
        "such as 20240131.",
    )
    timestamp_format: str | None = Field(
        default=None,
        description="How times are written, as strptime has it, if they are none of these: `%d.%m.%Y %H:%M`.",
    )
    time_zone: str | None = Field(
        default=None,
        description="IANA name of the zone of times without an offset, such as `Europe/Berlin`; default: UTC.",
    )
    null_values: str = Field(
        default=",".join(NULL_VALUES),
        description="Ids and times that count as missing, separated by commas, as empty ones do; `,` for none else.",
    )
    row_filter: str | None = Field(
        default=None,
        description="SQL condition on the columns of the source, such as `event_type = 'click'`: other rows are "
        "ignored.",
    )
    start_week: str | None = Field(
        default=None, description="Monday of the first week; default: the first one in the source."
    )
    end_week: str | None = Field(
        default=None, description="Monday of the last week; default: none, every week that closes is added."
    )
    device: str = Field(default="auto", description="`auto` (a GPU if there is one), `cpu`, `cuda`, `cuda:1`, ...")
    batching: Batching = Field(
        default="auto",
        description="How the encoder goes through a graph: `full` (all of it at once), `sampled` (batches of sampled "
        "neighbourhoods) or `auto` (what fits the memory). The launchpad's `batching` wins where it is not `auto`.",
    )
    sampler: SamplerName = Field(
        default="auto",
        description="What draws the neighbours of sampled batches: `native`, `torch-sparse`, `pyg-lib`, or `auto` (a "
        "compiled one if one is installed). The launchpad's `sampler` wins where it is not `auto`.",
    )
    workers: str | None = Field(
        default=None,
        description="What works through the users: threads of the run's process (empty), `ray` (a Ray cluster of this "
        "machine that lasts as long as the run) or the address of a cluster of Ray. It needs the extra `[ray]`.",
    )
    task_shards: int = Field(
        default=4,
        ge=1,
        description="Shards of users (each of 256 to 4,096, by step) in one task of Ray: fewer need less memory.",
    )
    owner: str = Field(
        default="team:recommendations",
        description="The owner of the assets in the UI: an e-mail address, or `team:` and a name.",
    )
    k: int = Field(default=5, ge=1, le=100, description="Events in a list.")
    repeats: Literal["learned", "exclude"] = Field(
        default="learned",
        description="`learned`: the ranker decides about events that the user interacted with before; `exclude`: they "
        "are not recommended.",
    )
    allow_events: str | None = Field(
        default=None,
        description="Only these events are recommended: ids separated by commas, or a file with one per line.",
    )
    deny_events: str | None = Field(
        default=None,
        description="These events are never recommended: ids separated by commas, or a file with one per line.",
    )
    event_expiry: str | None = Field(
        default=None,
        description="CSV or Parquet file with `event_id` and `expires_at`: an event that has expired when the target "
        "week starts is not recommended for it.",
    )
    min_distinct_events: int = Field(
        default=0,
        ge=0,
        description="The least number of different events on all lists of a week; last places are replaced until they "
        "have it.",
    )
    max_silent_weeks: int | None = Field(
        default=None,
        ge=0,
        description="Users without an interaction in the week and this many weeks before it get no list of their own; "
        "default: every user gets one. 0: only users of the week itself.",
    )
    nouns: str = Field(
        default=NOUNS,
        description="The words of reasons for a user, an event, and what users did with it, such as "
        "`customer,product,bought`.",
    )
    evaluation_users: int = Field(
        default=50_000,
        ge=0,
        description="Published lists are scored with all active users, baselines and diagnostics with so many of them, "
        "drawn by a hash of week and id; 0: with all of them.",
    )
    event_features: str | None = Field(
        default=None,
        description="CSV or Parquet file with `event_id` and attributes of the event: category, price, date. With a "
        "column `valid_from`, a row is used from that time on.",
    )
    user_features: str | None = Field(
        default=None, description="The same for users, with `user_id`: town, plan, date of joining."
    )
    export_parquet: str | None = Field(
        default=None,
        repr=False,  # as that of `source`
        description="Folder, or `s3://bucket/prefix`, to which every week's lists and metrics are also written, as "
        "Parquet in hive partitions.",
    )
    export_postgres: str | None = Field(
        default=None,
        description="`postgresql://user@host:port/database?schema=name`, to whose tables every week's lists and "
        "metrics are also written.",
    )
    alert_url: str | None = Field(
        default=None,
        repr=False,  # whoever knows it may post to it
        description='URL of a webhook that gets `{"text": ...}` by POST when a run fails, the source cannot be read '
        "twice in a row, or the newest week has no lists by Monday 12:00 UTC. A daemon must run.",
    )
    serve_token: SecretStr | None = Field(
        default=None,
        description="What `tgn serve` asks for as `Authorization: Bearer ...`: 16 characters or more, of those that a "
        "header may have.",
    )
    reports_url: str | None = Field(
        default=None,
        description="Address at which browsers find the folder `reports` of TGN_HOME, such as that of `tgn serve` with "
        "`/reports` behind it: the UI links to the weekly pages there. `tgn dev` serves them itself if it is not set.",
    )
    keep_weeks: int | None = Field(
        default=None,
        ge=26,
        description="Weeks whose models are kept, and all since a pinned one; older ones are removed when a run "
        "starts. Default: all. It must be more than `origins` + `sequence` of the ranker.",
    )
    keep_run_days: int | None = Field(
        default=None,
        ge=7,
        description="Days for which Dagster's history of runs is kept; default: all. Ticks: see `retention` in "
        "`dagster.yaml`.",
    )
    future_blind: bool = Field(
        default=False,
        description="Adds the check future_blind. When weekly_top5_predictions of a past week is materialized from its "
        "page, the week is computed again as if no later week existed, and compared byte by byte.",
    )

    def export_places(self) -> dict[str, str]:
        """Destination -> where it writes, for those that are set (`ml.export.destinations`)."""
        fields = {name: getattr(self, name) for name in type(self).model_fields if name.startswith("export_")}
        return {name.removeprefix("export_"): place for name, place in fields.items() if place}

    @field_validator("home")
    @classmethod
    def _absolute(cls, home: Path) -> Path:
        return home.expanduser().resolve()

    @field_validator("source", "export_parquet")
    @classmethod
    def _without_credentials(cls, place: str | None) -> str | None:
        if place and not is_postgres(place) and holds_password(place):
            raise ValueError("it holds a password; take it out: credentials are read from the environment alone")
        return place

    @field_validator("export_parquet")
    @classmethod
    def _writable_place(cls, place: str | None) -> str | None:
        if place is None or not is_url(place):
            return None if place is None else str(Path(place).expanduser().resolve())
        if is_postgres(place):
            raise ValueError("it is a database; set TGN_EXPORT_POSTGRES to it")
        if place.partition("://")[0].lower() in (*WEB, "file"):
            raise ValueError(f"{place} is no object store; name a folder, or a URL such as s3://bucket/prefix")
        return place.rstrip("/")

    @field_validator("source")
    @classmethod
    def _without_password(cls, source: str) -> str:
        return refuse_password(source) if is_postgres(source) else source

    @field_validator("source_query")
    @classmethod
    def _table_or_select(cls, query: str | None) -> str | None:
        if query is not None:
            relation(query)
        return query

    @field_validator("export_postgres")
    @classmethod
    def _a_database(cls, url: str | None) -> str | None:
        if url is None:
            return None
        if not is_postgres(url):
            raise ValueError("it is no URL of PostgreSQL; write postgresql://user@host:port/database")
        return refuse_password(url)

    @field_validator("start_week", "end_week")
    @classmethod
    def _monday(cls, week: str | None) -> str | None:
        if week is None:
            return None
        try:
            date.fromisoformat(week)
        except ValueError:
            raise ValueError(f"{week!r} is no date; write the Monday as YYYY-MM-DD") from None
        return week_key(week_number(week))

    @field_validator("nouns")
    @classmethod
    def _three_words(cls, nouns: str) -> str:
        Words.parse(nouns)
        return nouns

    @field_validator("reports_url")
    @classmethod
    def _shown_in_the_ui(cls, url: str | None) -> str | None:
        if url and (holds_password(url) or "?" in url or "#" in url):
            raise ValueError("the UI shows it: write scheme, host and path alone, without a password or a token")
        return url and url.rstrip("/")

    @field_validator("alert_url", "reports_url")
    @classmethod
    def _a_web_address(cls, url: str | None) -> str | None:
        if url is not None and not url.lower().startswith(("http://", "https://")):
            raise ValueError("it is no http or https URL")
        return url

    @field_validator("serve_token")
    @classmethod
    def _long_enough(cls, token: SecretStr | None) -> SecretStr | None:
        if token is not None and not re.fullmatch(r"[!-~]{16,}", token.get_secret_value()):
            raise ValueError(
                "it needs 16 characters or more, printable ASCII without blanks; `openssl rand -hex 32` makes one"
            )
        return token

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, zone: str | None) -> str | None:
        try:
            return zone and str(ZoneInfo(zone))
        except (ValueError, ZoneInfoNotFoundError):
            raise ValueError(f"{zone!r} is no IANA time zone; write one such as Europe/Berlin") from None

    @field_validator("owner")
    @classmethod
    def _email_or_team(cls, owner: str) -> str:
        if not re.fullmatch(r"team:[\w.-]+|[^@\s]+@[^@\s]+\.[^@\s]+", owner):
            raise ValueError(f"{owner!r} is neither an e-mail address nor team:<name>")
        return owner

    @model_validator(mode="after")
    def _ordered(self) -> "Settings":
        if self.start_week and self.end_week and self.end_week < self.start_week:
            raise ValueError(f"TGN_END_WEEK={self.end_week} comes before TGN_START_WEEK={self.start_week}")
        if is_postgres(self.source) and not self.source_query:
            raise ValueError(f"TGN_SOURCE={self.source} needs TGN_SOURCE_QUERY, the name of a table or a SELECT")
        if self.source_query and not is_postgres(self.source):
            raise ValueError(f"TGN_SOURCE_QUERY is for a PostgreSQL source; TGN_SOURCE={self.source} is none")
        return self


class _GivenSettings(Settings):
    """Settings that read nothing but their arguments."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 (pydantic's signature)
        init_settings: PydanticBaseSettingsSource,
        *others: PydanticBaseSettingsSource,  # noqa: ARG003 (as above)
        **named: PydanticBaseSettingsSource,  # noqa: ARG003 (as above)
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The arguments alone."""
        return (init_settings,)


def given_settings(values: Mapping[str, Any]) -> Settings:
    """The settings `values`, by field, whatever the environment says; SettingsError names the field and the reason."""
    try:
        return _GivenSettings(**values)
    except ValidationError as error:
        reasons = "; ".join(_reason(item["loc"], item["msg"]) for item in error.errors())
        raise SettingsError(re.sub(r"\bTGN_[A-Z_]+", _field, reasons)) from safe_error(error)


def _field(variable: re.Match[str]) -> str:
    """The field of an environment variable's name."""
    return variable[0].removeprefix(PREFIX).lower()


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The settings of this process, read once; SettingsError if one of them cannot be used."""
    return read_settings()


def read_settings() -> Settings:
    """The settings as the environment and `.env` have them now; SettingsError names the variable and the reason."""
    _reject_misspelt()
    try:
        return Settings()
    except ValidationError as error:
        raise SettingsError("; ".join(_reason(item["loc"], item["msg"]) for item in error.errors())) from safe_error(
            error
        )


def _reason(location: tuple[int | str, ...], message: str) -> str:
    reason = message.removeprefix("Value error, ")
    return f"{PREFIX}{str(location[0]).upper()}: {reason}" if location else reason


def _reject_misspelt() -> None:
    """SettingsError for a misspelt name, which would otherwise be ignored."""
    names = [PREFIX + name.upper() for name in Settings.model_fields]
    for name in (*os.environ, *dotenv_values(ENV_FILE)):
        near = get_close_matches(name, names, n=1, cutoff=0.85)
        if name.startswith(PREFIX) and name not in names and near:
            raise SettingsError(f"{name} is not a setting; did you mean {near[0]}?")
