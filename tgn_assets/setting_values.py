"""What the values of settings must be: each function gives the value as it is used; its ValueError says what is
wrong."""

import re
from collections.abc import Callable
from errno import ENAMETOOLONG
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, SecretStr

from tgn_assets.ml.connectors.object_store import WEB, is_url
from tgn_assets.ml.connectors.postgres import is_postgres, refuse_password, relation
from tgn_assets.ml.recommend.words import Words
from tgn_assets.ml.safe_text import holds_password
from tgn_assets.ml.weeks import week_key, week_number


def checked(check: Callable[[Any], Any]) -> AfterValidator:
    """Lets `check` see the value of a setting, if it has one, and say what it is then; its ValueError says why not."""
    return AfterValidator(lambda value: None if value is None else check(value))


def source(source: str) -> str:
    """A source, without a password."""
    if source.startswith("~"):
        absolute(Path(source))
    return refuse_password(source) if is_postgres(source) else without_password(source)


def without_password(location: str) -> str:
    """A path or URL, without a password."""
    if holds_password(location):
        raise ValueError("it holds a password; take it out: credentials are read from the environment alone")
    return location


def table_or_select(query: str) -> str:
    """The name of a table, or one SELECT."""
    relation(query)
    return query


def parquet_location(location: str) -> str:
    """A folder, as an absolute path, or a URL of an object store."""
    if not is_url(location):
        return str(Path(without_password(location)).expanduser().resolve())
    if is_postgres(location):
        raise ValueError("it is a database; set TGN_EXPORT_POSTGRES to it")
    if without_password(location).partition("://")[0].lower() in (*WEB, "file"):
        raise ValueError(f"{location} is no object store; name a folder, or a URL such as s3://bucket/prefix")
    return location.rstrip("/")


def postgres_location(url: str) -> str:
    """A URL of PostgreSQL, without a password."""
    if not is_postgres(url):
        raise ValueError("it is no URL of PostgreSQL; write postgresql://user@host:port/database")
    return refuse_password(url)


def monday(week: str) -> str:
    """The Monday of a week."""
    return week_key(week_number(week))


def three_words(nouns: str) -> str:
    """The nouns of reasons."""
    Words.parse(nouns)
    return nouns


def web_address(url: str) -> str:
    """An http or https URL."""
    if not url.lower().startswith(("http://", "https://")):
        raise ValueError("it is no http or https URL")
    return url


def shown_address(url: str) -> str:
    """One that the UI may show."""
    if holds_password(url) or "?" in url or "#" in url:
        raise ValueError("the UI shows it: write scheme, host and path alone, without a password or a token")
    return web_address(url.rstrip("/"))


def long_enough(token: SecretStr) -> SecretStr:
    """A token that nobody guesses."""
    if not re.fullmatch(r"[!-~]{16,}", token.get_secret_value()):
        raise ValueError(
            "it needs 16 characters or more, printable ASCII without blanks; `openssl rand -hex 32` makes one"
        )
    return token


def known_zone(zone: str) -> str:
    """An IANA time zone, or nothing."""
    try:
        return zone and str(ZoneInfo(zone))
    except (ValueError, OSError, ZoneInfoNotFoundError):  # `Europe` is a folder
        raise ValueError(f"{zone!r} is no IANA time zone; write one such as Europe/Berlin") from None


def email_or_team(owner: str) -> str:
    """An owner, as Dagster has them."""
    if not re.fullmatch(r"team:[\w.-]+|[^@\s]+@[^@\s]+\.[^@\s]+", owner):
        raise ValueError(f"{owner!r} is neither an e-mail address nor team:<name>")
    return owner


def of_strptime(format: str) -> str:
    """A format of strptime that has a date."""
    if "%" not in format:
        raise ValueError(f"{format!r} has no directive of strptime, such as %Y; write %d.%m.%Y %H:%M or the like")
    if not re.search("%[YyGcx]", format):
        raise ValueError(f"{format!r} has no year, and so no date; write %d.%m.%Y %H:%M or the like")
    if not re.search("%-?[djcxVUW]", format):
        raise ValueError(f"{format!r} has no day, so that all rows would be of the first one; export the day as well")
    if re.search("%-?I", format) and "%p" not in format:
        raise ValueError(f"{format!r} has hours of half a day, %I, and no %p that says which half; write %H, or add %p")
    if "%Z" in format:
        raise ValueError("%Z reads names of zones, of which several are called alike; write %z, or set TGN_TIME_ZONE")
    return format


def absolute(home: Path) -> Path:
    """A folder, as an absolute path."""
    try:
        home = home.expanduser()
    except RuntimeError:
        raise ValueError(f"{home} begins with ~ and the name of a user that this machine does not have") from None
    try:
        found = home.resolve()
    except RuntimeError:
        raise ValueError(f"{home} is a link that leads back to itself") from None
    try:
        found.is_dir()
    except OSError as error:  # whoever uses the folder names any other error
        if error.errno == ENAMETOOLONG:
            raise ValueError("its path, or a name in it, is longer than the file system allows") from None
    return found


def home_folder(home: Path) -> Path:
    """A folder whose absolute path Dagster can put into the URL of its history, as it is."""
    found = absolute(home)
    if mistaken := re.search("[?]|%[0-9A-Fa-f]{2}", str(found)):
        meaning = "which means something else in the URL of Dagster's history; name another folder"
        raise ValueError(f"{found} has {mistaken[0]!r}, {meaning}")
    return found
