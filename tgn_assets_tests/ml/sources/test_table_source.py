"""A data frame as a source is understood like a file with the same values."""

from datetime import date
from pathlib import Path

import pandas as pd
import pytest

from tgn_assets.ml.sources.extent import describe_source, survey_source
from tgn_assets.ml.sources.spec import SourceError, SourceSpec

TIMES = pd.to_datetime(["2024-01-03 10:00:00", "2024-01-07 23:59:59"])


def spec(times: object, users: object = ("ann", "bob")) -> SourceSpec:
    rows = pd.DataFrame({"who": pd.Series(users), "what": [7, 12], "when": times})
    return SourceSpec("interactions", "who", "what", "when", table=rows)


@pytest.mark.parametrize(
    "times",
    [
        TIMES,
        TIMES.astype("datetime64[s]"),
        TIMES.tz_localize("UTC"),
        TIMES.tz_localize("UTC").tz_convert("Asia/Tokyo"),
        TIMES.astype("int64") // 10**9,
        TIMES.astype("int64") // 10**6,
        [str(time) for time in TIMES],
        list(TIMES.to_pydatetime()),
    ],
    ids=["ns", "s", "UTC", "Tokyo", "unix", "unix_ms", "text", "objects"],
)
def test_times_are_read_like_those_of_a_file(times: object, tmp_path: Path) -> None:
    file = tmp_path / "log.csv"
    pd.DataFrame({"who": ["ann", "bob"], "what": [7, 12], "when": TIMES}).to_csv(file, index=False)
    assert survey_source(spec(times)) == survey_source(SourceSpec(str(file), "who", "what", "when"))


def test_days_are_times() -> None:
    assert describe_source(spec([date(2024, 1, 3), date(2024, 1, 7)])).closed_by_rows == "2024-01-01"


def test_rows_that_cannot_be_used_are_counted() -> None:
    assert describe_source(spec(TIMES, ["ann", None])).rejected == {"missing_user": 1}
    with pytest.raises(SourceError, match="interactions has no rows"):
        describe_source(SourceSpec("interactions", "who", "what", "when", table=spec(TIMES).table.iloc[:0]))  # type: ignore[union-attr]
