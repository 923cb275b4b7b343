"""What is to be done: worked out by hand on six weeks."""

from hypothesis import given
from hypothesis import strategies as st

from tgn_assets.automation.work_items import CHANGED, INGEST, MISSING, REFRESH, WorkItem, pending

WEEKS = ["2024-01-01", "2024-01-08", "2024-01-15", "2024-01-22", "2024-01-29", "2024-02-05"]
DIGESTS = {week: f"digest of {week}" for week in WEEKS}


def _brief(todo: list[WorkItem]) -> list[tuple[str, str, str, str]]:
    return [(item.action, item.first, item.last, item.reason) for item in todo]


def test_a_new_home_ingests_the_past_in_one_go_and_refreshes_the_newest_week():
    assert _brief(pending(WEEKS, set(), {}, DIGESTS)) == [
        (INGEST, WEEKS[0], WEEKS[4], MISSING),
        (REFRESH, WEEKS[5], WEEKS[5], MISSING),
    ]


def test_a_complete_home_has_nothing_to_do():
    assert pending(WEEKS, set(WEEKS[3:]), DIGESTS, {}) == []


def test_gaps_after_the_first_published_week_are_refreshed_oldest_first():
    todo = pending(WEEKS, {WEEKS[1], WEEKS[4]}, DIGESTS, {})
    assert _brief(todo) == [(REFRESH, week, week, MISSING) for week in (WEEKS[2], WEEKS[3], WEEKS[5])]


def test_a_changed_week_is_refreshed_if_it_was_published_and_ingested_if_it_was_not():
    todo = pending(WEEKS, set(WEEKS[3:]), DIGESTS, {WEEKS[1]: "other", WEEKS[4]: "other"})
    assert _brief(todo) == [(INGEST, WEEKS[1], WEEKS[1], CHANGED), (REFRESH, WEEKS[4], WEEKS[4], CHANGED)]


def test_a_week_whose_rows_went_back_to_what_was_ingested_is_not_asked_for():
    assert pending(WEEKS, {WEEKS[5]}, DIGESTS, {WEEKS[2]: DIGESTS[WEEKS[2]]}) == []


def test_the_key_of_a_request_changes_with_the_rows_it_is_about_and_with_nothing_else():
    first, again = (pending(WEEKS, set(), {}, DIGESTS) for _ in range(2))
    moved = pending(WEEKS, set(), {}, DIGESTS | {WEEKS[5]: "other"})
    assert [item.key for item in first] == [item.key for item in again]
    assert first[0].key == moved[0].key
    assert first[1].key != moved[1].key


def test_no_closed_week_is_nothing_to_do():
    assert pending([], set(), {}, {}) == []


@given(st.sets(st.sampled_from(WEEKS)), st.sets(st.sampled_from(WEEKS)), st.sets(st.sampled_from(WEEKS)))
def test_doing_what_is_pending_in_order_leaves_nothing_pending(published, ingested, changed):
    there = {week: DIGESTS[week] for week in ingested}
    source = {week: f"new {week}" if week in changed else DIGESTS[week] for week in WEEKS}
    todo = pending(WEEKS, published, there, source)
    assert [item.first for item in todo] == sorted(item.first for item in todo)
    for item in todo:
        done = [week for week in WEEKS if item.first <= week <= item.last]
        there |= {week: source[week] for week in done}
        if item.action == REFRESH:
            published = published | set(done)
    assert pending(WEEKS, published, there, source) == []
