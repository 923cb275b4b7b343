"""Policies out of settings and files."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest

from tgn_assets.ml.data.policy import Policy
from tgn_assets.ml.data.policy_files import PolicyError, expiry_times, read_expiry, read_ids, read_policy

UNSET = dict.fromkeys(("allow_events", "deny_events", "event_expiry"))


def read(**settings: Any) -> Policy:
    return read_policy(**{"k": 5, "repeats": "learned", "min_distinct_events": 0, **UNSET, **settings})


def test_without_any_setting_everything_may_be_recommended() -> None:
    assert read() == Policy()


def test_ids_are_listed_in_place_or_in_a_file(tmp_path: Path) -> None:
    assert read_ids("TGN_DENY_EVENTS", "tea, rye,7.0") == {"tea", "rye", "7"}
    (tmp_path / "ids.txt").write_text("\ufefftea\n\n rye, dark \r\n", encoding="utf-8")
    assert read_ids("TGN_DENY_EVENTS", str(tmp_path / "ids.txt")) == {"tea", "rye, dark"}


@pytest.mark.parametrize(
    ("value", "says"),
    [("nowhere/ids", "is no file"), ("ids.txt", "is no file"), (" , ", "holds no event id")],
)
def test_a_list_that_cannot_be_used_names_its_setting(value: str, says: str) -> None:
    with pytest.raises(PolicyError, match=f"TGN_ALLOW_EVENTS={value} {says}"):
        read(allow_events=value)


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    (tmp_path / "ids").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PolicyError, match="cannot be read as text"):
        read_ids("TGN_DENY_EVENTS", str(tmp_path / "ids"))


def test_a_list_as_csv_may_have_quotes_but_one_column(tmp_path: Path) -> None:
    file = tmp_path / "deny.csv"
    for name, text in (("deny.csv", '"a, b"\n\n"c ""d"""\n5\n'), ("deny.txt", '"a, b"\n"c ""d"""\n"5"\n')):
        (tmp_path / name).write_text(text)
        assert read_ids("TGN_DENY_EVENTS", str(tmp_path / name)) == {"a, b", 'c "d"', "5"}
    (tmp_path / "deny.txt").write_text('a, b\n"c"\n')
    assert read_ids("TGN_DENY_EVENTS", str(tmp_path / "deny.txt")) == {"a, b", '"c"'}
    for text in ("event_id,reason\na,sold out\n", "a;b\n", "a\nb,c\n"):
        file.write_text(text)
        with pytest.raises(
            PolicyError, match=r"TGN_DENY_EVENTS=.*deny.csv has 2 columns in a line, .*alone, one a line"
        ):
            read_ids("TGN_DENY_EVENTS", str(file))


def test_an_event_expires_at_the_earliest_of_its_times_in_utc(tmp_path: Path) -> None:
    table = tmp_path / "expiry.csv"
    table.write_text(
        "note,event_id,expires_at\n,tea,2024-03-01\n,tea,2024-02-01T01:30:00+01:00\n,7,2024-05-01 12:00\n,x,\n"
    )
    times = {"tea": datetime(2024, 2, 1, 0, 30, tzinfo=UTC), "7": datetime(2024, 5, 1, 12, tzinfo=UTC)}
    assert read_expiry(str(table)) == times
    parquet = tmp_path / "expiry.parquet"
    duckdb.execute(f"COPY (SELECT 7 AS event_id, TIMESTAMP '2024-05-01 12:00' AS expires_at) TO '{parquet}'")
    assert read_expiry(str(parquet)) == {"7": times["7"]}
    duckdb.execute(f"COPY (SELECT 7e0 AS event_id, TIMESTAMP '2024-05-01 12:00' AS expires_at) TO '{parquet}'")
    assert read_expiry(str(parquet)) == {"7": times["7"]}


def test_an_event_may_never_expire(tmp_path: Path) -> None:
    (path := tmp_path / "expiry.csv").write_text("event_id,expires_at\ntea,infinity\nrye,-infinity\njam,294246-01-10\n")
    found = read_expiry(str(path))
    assert found["tea"] == found["jam"] == datetime(2200, 1, 1, tzinfo=UTC)
    assert found["rye"] == datetime(1970, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("expires", ["1970-01-01", "1970-01-01 01:00:00", "1899-12-30", "0001-01-01", "24-03-01"])
def test_an_event_that_expired_long_ago_is_asked_about(expires: str, tmp_path: Path) -> None:
    (path := tmp_path / "expiry.csv").write_text(f"event_id,expires_at\nrye,2024-03-01\ntea,{expires}\n")
    with pytest.raises(PolicyError, match=r"the event tea expires at .*leave expires_at empty where .*TGN_DENY_EVENTS"):
        read_expiry(str(path))
    with pytest.raises(ValueError, match="the event tea expires at"):
        expiry_times(pd.DataFrame({"event_id": ["tea"], "expires_at": [expires]}))


def test_words_for_no_value_are_no_expiry(tmp_path: Path) -> None:
    (path := tmp_path / "expiry.csv").write_text("event_id,expires_at\ntea,NaT\nrye,-\njam\nfig,2024-03-01\n")
    assert read(event_expiry=str(path), null_values=("NaT", "-")).expires == {"fig": datetime(2024, 3, 1, tzinfo=UTC)}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("event_id,expires_at\ntea,2024-03-01,x\n", "Expected Number of Columns: 2 Found: 3.: it needs"),
        ("event_id,expires_at,expires_at\ntea,2024-03-01,\n", "has the column expires_at twice"),
        ("", "its first line has the names of the columns"),
        ("event_id,expires_at\nté,2024-03-01\n".encode("latin-1"), "is not text in UTF-8"),
        (b"\xd0\xcf\x11\xe0 a workbook", "is a workbook, which is not read: save its sheet as CSV"),
    ],
)
def test_a_table_that_is_no_csv_is_named(text: str | bytes, says: str, tmp_path: Path) -> None:
    (path := tmp_path / "expiry.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(PolicyError, match=f"TGN_EVENT_EXPIRY=.*{says}"):
        read_expiry(str(path))


@pytest.mark.parametrize(
    "text",
    [
        "event_id,until\ntea,2024-03-01\n",
        "event_id,expires_at\ntea,soon\n",
        "event_id,expires_at\ntea,2024-03-01 12:00:00 BST\n",
    ],
)
def test_a_table_that_cannot_be_used_says_what_it_needs(text: str, tmp_path: Path) -> None:
    (tmp_path / "expiry.csv").write_text(text)
    with pytest.raises(PolicyError, match=r"TGN_EVENT_EXPIRY=.*needs the columns event_id and expires_at"):
        read_expiry(str(tmp_path / "expiry.csv"))
    with pytest.raises(PolicyError, match="is no file"):
        read_expiry(str(tmp_path / "nothing.csv"))
