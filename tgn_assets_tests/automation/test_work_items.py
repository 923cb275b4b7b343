"""The plan for a log of six weeks, worked out by hand."""

from hypothesis import given
from hypothesis import strategies as st

from tgn_assets.automation.work_items import CHANGED, INGEST, MISSING, REFRESH, WorkItem, plan_work

WEEKS = ["2024-01-01", "2024-01-08", "2024-01-15", "2024-01-22", "2024-01-29", "2024-02-05"]
DIGESTS = {week: f"digest of {week}" for week in WEEKS}


def _brief(items: list[WorkItem]) -> list[tuple[str, str, str, str]]:
    return [(item.action, item.first, item.last, item.reason) for item in items]


def test_a_new_home_ingests_the_past_and_refreshes_the_newest_week() -> None:
    assert _brief(plan_work(WEEKS, set(), {}, DIGESTS)) == [
        (INGEST, WEEKS[0], WEEKS[4], MISSING),
        (REFRESH, WEEKS[5], WEEKS[5], MISSING),
    ]


def test_a_complete_home_has_nothing_to_do() -> None:
    assert plan_work(WEEKS, set(WEEKS[3:]), DIGESTS, {}) == []


def test_gaps_are_refreshed_oldest_first() -> None:
    items = plan_work(WEEKS, {WEEKS[1], WEEKS[4]}, DIGESTS, {})
    assert _brief(items) == [(REFRESH, week, week, MISSING) for week in (WEEKS[2], WEEKS[3], WEEKS[5])]


def test_a_changed_week_is_refreshed_if_it_was_published() -> None:
    items = plan_work(WEEKS, set(WEEKS[3:]), DIGESTS, {WEEKS[1]: "other", WEEKS[4]: "other"})
    assert _brief(items) == [(INGEST, WEEKS[1], WEEKS[1], CHANGED), (REFRESH, WEEKS[4], WEEKS[4], CHANGED)]


def test_a_week_whose_rows_changed_back_is_complete() -> None:
    assert plan_work(WEEKS, {WEEKS[5]}, DIGESTS, {WEEKS[2]: DIGESTS[WEEKS[2]]}) == []


def test_the_key_changes_with_the_rows_of_its_weeks_only() -> None:
    first, again = (plan_work(WEEKS, set(), {}, DIGESTS) for _ in range(2))
    moved = plan_work(WEEKS, set(), {}, DIGESTS | {WEEKS[5]: "other"})
    assert [item.key for item in first] == [item.key for item in again]
    assert first[0].key == moved[0].key
    assert first[1].key != moved[1].key


def test_no_closed_week_is_nothing_to_do() -> None:
    assert plan_work([], set(), {}, {}) == []


@given(st.sets(st.sampled_from(WEEKS)), st.sets(st.sampled_from(WEEKS)), st.sets(st.sampled_from(WEEKS)))
def test_after_the_planned_work_nothing_is_left(published: set[str], ingested: set[str], changed: set[str]) -> None:
    there = {week: DIGESTS[week] for week in ingested}
    source = {week: f"new {week}" if week in changed else DIGESTS[week] for week in WEEKS}
    items = plan_work(WEEKS, published, there, source)
    assert [item.first for item in items] == sorted(item.first for item in items)
    for item in items:
        done = [week for week in WEEKS if item.first <= week <= item.last]
        there |= {week: source[week] for week in done}
        if item.action == REFRESH:
            published = published | set(done)
    assert plan_work(WEEKS, published, there, source) == []
