from datetime import UTC, datetime

import dagster as dg
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tgn_assets.assets.partitions import PREVIOUS_WEEK, weekly_partitions
from tgn_assets.ml.weeks import shift, week_key

WEEKS = weekly_partitions("2024-01-01", "2025-12-29")
KEYS = WEEKS.get_partition_keys()


def upstream(mapping: dg.TimeWindowPartitionMapping, week: str) -> list[str]:
    wanted = WEEKS.empty_subset().with_partition_keys([week])
    found = mapping.get_upstream_mapped_partitions_result_for_partitions(wanted, WEEKS, WEEKS)
    return sorted(found.partitions_subset.get_partition_keys())


def test_partition_is_monday_to_monday_utc() -> None:
    window = WEEKS.time_window_for_partition_key("2024-01-08")
    assert window.start == datetime(2024, 1, 8, tzinfo=UTC)
    assert window.end == datetime(2024, 1, 15, tzinfo=UTC)


@pytest.mark.parametrize(
    ("now", "newest"),
    [(datetime(2024, 1, 21, 23, 59, tzinfo=UTC), "2024-01-08"), (datetime(2024, 1, 22, tzinfo=UTC), "2024-01-15")],
)
def test_week_exists_once_it_has_closed(now: datetime, newest: str) -> None:
    assert weekly_partitions("2024-01-01").get_partition_keys(current_time=now)[-1] == newest


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(KEYS))
@example(KEYS[0])
def test_previous_week_mapping(week: str) -> None:
    assert upstream(PREVIOUS_WEEK, week) == [key for key in KEYS if key < week][-1:]


@given(st.integers(min_value=0, max_value=11_000))
def test_partition_keys_are_week_keys(number: int) -> None:
    key = week_key(number)
    weeks = weekly_partitions(key, shift(key, 1))
    assert weeks.get_partition_keys(current_time=datetime(2300, 1, 1, tzinfo=UTC)) == [key, shift(key, 1)]
