"""The settings of a deployment, from the environment (`TGN_HOME`, `TGN_SOURCE`, ...) and from a `.env` file."""

import os
import re
from collections.abc import Callable, Mapping
from datetime import date
from difflib import get_close_matches
from errno import ENAMETOOLONG
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from dotenv import dotenv_values
from dotenv.parser import parse_stream
from pydantic import AfterValidator, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from tgn_assets.ml.config import Batching, PresetName, SamplerName, option
from tgn_assets.ml.connectors.object_store import WEB, is_url
from tgn_assets.ml.connectors.postgres import is_postgres, refuse_password, relation
from tgn_assets.ml.recommend.words import NOUNS, Words
from tgn_assets.ml.safe_text import SafeError, holds_password, safe_error, shortened
from tgn_assets.ml.sources.spec import NULL_VALUES
from tgn_assets.ml.weeks import week_key, week_number

PREFIX, ENV_FILE = "TGN_", ".env"


class SettingsError(SafeError, ValueError):
    """A setting that cannot be used; the message names the environment variable."""


def _checked(check: Callable[[Any], Any]) -> AfterValidator:
    """Lets `check` see the value of a setting, if it has one, and say what it is then; its ValueError says why not."""
    return AfterValidator(lambda value: None if value is None else check(value))


def _source(source: str) -> str:
    if source.startswith("~"):
        _absolute(Path(source))
    return refuse_password(source) if is_postgres(source) else _without_password(source)


def _without_password(place: str) -> str:
    if holds_password(place):
        raise ValueError("it holds a password; take it out: credentials are read from the environment alone")
    return place


def _table_or_select(query: str) -> str:
    relation(query)
    return query


def _parquet_place(place: str) -> str:
    if not is_url(place):
        return str(Path(_without_password(place)).expanduser().resolve())
    if is_postgres(place):
        raise ValueError("it is a database; set TGN_EXPORT_POSTGRES to it")
    if _without_password(place).partition("://")[0].lower() in (*WEB, "file"):
        raise ValueError(f"{place} is no object store; name a folder, or a URL such as s3://bucket/prefix")
    return place.rstrip("/")


def _postgres_place(url: str) -> str:
    if not is_postgres(url):
        raise ValueError("it is no URL of PostgreSQL; write postgresql://user@host:port/database")
    return refuse_password(url)


def _monday(week: str) -> str:
    try:
        date.fromisoformat(week)
    except ValueError:
        raise ValueError(f"{week!r} is no date; write the Monday as YYYY-MM-DD") from None
    return week_key(week_number(week))


def _three_words(nouns: str) -> str:
    Words.parse(nouns)
    return nouns


def _web_address(url: str) -> str:
    if not url.lower().startswith(("http://", "https://")):
        raise ValueError("it is no http or https URL")
    return url


def _shown_address(url: str) -> str:
    if holds_password(url) or "?" in url or "#" in url:
        raise ValueError("the UI shows it: write scheme, host and path alone, without a password or a token")
    return _web_address(url.rstrip("/"))


def _long_enough(token: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[!-~]{16,}", token.get_secret_value()):
        raise ValueError(
            "it needs 16 characters or more, printable ASCII without blanks; `openssl rand -hex 32` makes one"
        )
    return token


def _known_zone(zone: str) -> str:
    try:
        return zone and str(ZoneInfo(zone))
    except (ValueError, OSError, ZoneInfoNotFoundError):  # `Europe` is a folder
        raise ValueError(f"{zone!r} is no IANA time zone; write one such as Europe/Berlin") from None


def _email_or_team(owner: str) -> str:
    if not re.fullmatch(r"team:[\w.-]+|[^@\s]+@[^@\s]+\.[^@\s]+", owner):
        raise ValueError(f"{owner!r} is neither an e-mail address nor team:<name>")
    return owner


def _of_strptime(format: str) -> str:
    if "%" not in format:
        raise ValueError(f"{format!r} has no directive of strptime, such as %Y; write %d.%m.%Y %H:%M or the like")
    if not re.search("%[YyGcx]", format):
        raise ValueError(f"{format!r} has no year, and so no date; write %d.%m.%Y %H:%M or the like")
    if "%Z" in format:
        raise ValueError("%Z reads names of zones, of which several are called alike; write %z, or set TGN_TIME_ZONE")
    return format


def _absolute(home: Path) -> Path:
    try:
        found = home.expanduser().resolve()
        found.is_dir()
        return found
    except OSError as error:
        if error.errno != ENAMETOOLONG:
            return found
        raise ValueError("its path, or a name in it, is longer than the file system allows") from None
    except RuntimeError:
        raise ValueError(f"{home} begins with ~ and the name of a user that this machine does not have") from None


Week = Annotated[str | None, _checked(_monday)]


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

    home: Annotated[Path, _checked(_absolute)] = option(
        Path(".tgn"), "Folder of all state: warehouse, artifacts, Dagster's history."
    )
    source: Annotated[str, _checked(_source)] = option(  # its URL may hold a token
        "synthetic",
        "`synthetic`, or a path, glob, folder or URL of CSV, JSON lines or Parquet, or "
        "`postgresql://user@host:port/database`.",
        repr=False,
    )
    source_query: Annotated[str | None, _checked(_table_or_select)] = option(
        None, "For a PostgreSQL source: the name of a table or view, or a SELECT."
    )
    user_column: str = option("ip_address", "Column of the source that names the user.")
    event_column: str = option("event_id", "Column of the source that names the event.")
    timestamp_column: str = option(
        "timestamp",
        "Column with the time: ISO text, a timestamp type, a unix time (seconds to nanoseconds), or a day such as "
        "20240131.",
    )
    timestamp_format: Annotated[str | None, _checked(_of_strptime)] = option(
        None, "How times are written, as strptime has it, if they are none of these: `%d.%m.%Y %H:%M`."
    )
    time_zone: Annotated[str | None, _checked(_known_zone)] = option(
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
        "neighbourhoods) or `auto` (what fits the memory). The launchpad's `batching` wins where it is not `auto`.",
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
    owner: Annotated[str, _checked(_email_or_team)] = option(
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
    nouns: Annotated[str, _checked(_three_words)] = option(
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
    export_parquet: Annotated[str | None, _checked(_parquet_place)] = option(  # as that of `source`
        None,
        "Folder, or `s3://bucket/prefix`, to which every week's lists and metrics are also written, as Parquet in "
        "hive partitions.",
        repr=False,
    )
    export_postgres: Annotated[str | None, _checked(_postgres_place)] = option(
        None,
        "`postgresql://user@host:port/database?schema=name`, to whose tables every week's lists and metrics are also "
        "written.",
    )
    alert_url: Annotated[str | None, _checked(_web_address)] = option(  # whoever knows it may post to it
        None,
        'URL of a webhook that gets `{"text": ...}` by POST when a run fails, the source cannot be read twice in a '
        "row, or the newest week has no lists by Monday 12:00 UTC. A daemon must run.",
        repr=False,
    )
    serve_token: Annotated[SecretStr | None, _checked(_long_enough)] = option(
        None,
        "What `tgn serve` asks for as `Authorization: Bearer ...`: 16 characters or more, of those that a header may "
        "have.",
    )
    reports_url: Annotated[str | None, _checked(_shown_address)] = option(
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

    def export_places(self) -> dict[str, str]:
        """Destination -> where it writes, for those that are set (`ml.export.destinations`)."""
        fields = {name: getattr(self, name) for name in type(self).model_fields if name.startswith("export_")}
        return {name.removeprefix("export_"): place for name, place in fields.items() if place}

    @model_validator(mode="after")
    def _ordered(self) -> "Settings":
        if self.start_week and self.end_week and self.end_week < self.start_week:
            raise ValueError(f"TGN_END_WEEK={self.end_week} comes before TGN_START_WEEK={self.start_week}")
        if is_postgres(self.source) and not self.source_query:
            raise ValueError(f"TGN_SOURCE={self.source} needs TGN_SOURCE_QUERY, the name of a table or a SELECT")
        for name, place in (("TGN_HOME", str(self.home)), ("TGN_EXPORT_PARQUET", self.export_parquet)):
            if place and _is_read_with(self.source, place):
                raise ValueError(
                    f"{name}={place} lies in the folder TGN_SOURCE, all of whose files are read: move it out"
                )
        if self.source_query and not is_postgres(self.source):
            raise ValueError(f"TGN_SOURCE_QUERY is for a PostgreSQL source; TGN_SOURCE={self.source} is none")
        return self


def _is_read_with(source: str, place: str) -> bool:
    """Whether `place` is in the folder `source`, or is that folder, and its name does not hide it."""
    folder = Path(source).expanduser()
    if is_url(source) or is_url(place) or not folder.is_dir() or not Path(place).is_relative_to(folder.resolve()):
        return False
    return not any(part.startswith((".", "_")) for part in Path(place).relative_to(folder.resolve()).parts)


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
