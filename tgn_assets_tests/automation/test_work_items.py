"""The plan for a log of six weeks, worked out by hand."""

from dataclasses import replace
from itertools import dropwhile

from hypothesis import given
from hypothesis import strategies as st

from tgn_assets.automation.work_items import CHANGED, INGEST, MISSING, OF_A_WEEK, REFRESH, STALE, WorkItem, plan_work
from tgn_assets.state.lineage import EVAL_METRICS, PREDICTIONS, SNAPSHOTS, UPSTREAM, AssetRecord, Lineage

WEEKS = ["2024-01-01", "2024-01-08", "2024-01-15", "2024-01-22", "2024-01-29", "2024-02-05"]
DIGESTS = {week: f"digest of {week}" for week in WEEKS}
MODELS = ("trained_gnn", "trained_ranker", "temporal_embeddings", PREDICTIONS)


def _made(lineage: Lineage, asset: str, week: str) -> Lineage:
    """`lineage` after `asset` of `week` was made; what it holds depends on what it was made from alone."""
    upstream = lineage.upstream(asset, week)
    made = {**lineage.made, (asset, week): AssetRecord(f"{asset} {hash(str(upstream))}", upstream)}
    return replace(lineage, made=made)


def _ingested(lineage: Lineage, weeks: list[str], source: dict[str, str]) -> Lineage:
    lineage = replace(lineage, ingested={**lineage.ingested, **{week: source[week] for week in weeks}})
    for week in weeks:
        lineage = _made(lineage, SNAPSHOTS, week)
    return lineage


def _home(published: list[str], *, ingested: list[str] = WEEKS, source: dict[str, str] = DIGESTS) -> Lineage:
    """Weeks `ingested` at once, then those `published` one by one."""
    lineage = _ingested(Lineage(), ingested, source)
    for week in published:
        for asset in UPSTREAM:
            lineage = _made(lineage, asset, week)
    return lineage


def _brief(items: list[WorkItem]) -> list[tuple[str, str, str, str]]:
    return [(item.action, item.first, item.last, item.reason) for item in items]


def test_a_new_home_ingests_the_past_and_refreshes_the_newest_week() -> None:
    assert _brief(plan_work(WEEKS, Lineage(), DIGESTS)) == [
        (INGEST, WEEKS[0], WEEKS[4], MISSING),
        (REFRESH, WEEKS[5], WEEKS[5], MISSING),
    ]


def test_snapshots_of_an_earlier_version_come_before_all_else() -> None:
    home, outdated = _home(WEEKS[3:]), {WEEKS[0], WEEKS[4]}
    assert _brief(plan_work(WEEKS, home, DIGESTS, outdated=outdated)) == [(INGEST, WEEKS[0], WEEKS[4], STALE)]
    late = DIGESTS | {WEEKS[4]: "other"}
    assert _brief(plan_work(WEEKS, home, late, outdated=outdated)) == [
        (INGEST, WEEKS[0], WEEKS[4], CHANGED),
        (REFRESH, WEEKS[4], WEEKS[4], CHANGED),
    ]


def test_gaps_are_refreshed_oldest_first() -> None:
    items = plan_work(WEEKS, _home([WEEKS[1], WEEKS[4]]), {})
    assert _brief(items) == [(REFRESH, week, week, MISSING) for week in (WEEKS[2], WEEKS[3], WEEKS[5])]


def test_a_changed_week_is_refreshed_if_it_was_published() -> None:
    items = plan_work(WEEKS, _home(WEEKS[3:]), DIGESTS | {WEEKS[1]: "other", WEEKS[4]: "other"})
    assert _brief(items) == [(INGEST, WEEKS[1], WEEKS[1], CHANGED), (REFRESH, WEEKS[4], WEEKS[4], CHANGED)]


def test_a_week_whose_rows_changed_back_is_complete() -> None:
    assert plan_work(WEEKS, _home([WEEKS[5]]), {WEEKS[2]: DIGESTS[WEEKS[2]]}) == []


def test_a_run_killed_in_the_ranker_leaves_it_and_what_follows_stale() -> None:
    lineage = _home(WEEKS[3:])
    lineage = _made(_ingested(lineage, [WEEKS[4]], {WEEKS[4]: "late rows"}), "trained_gnn", WEEKS[4])
    [item, newest] = plan_work(WEEKS, lineage, {})
    assert (item.first, item.reason) == (WEEKS[4], STALE)
    assert item.assets == tuple(dropwhile(lambda asset: asset != "trained_ranker", UPSTREAM))
    assert (newest.first, newest.assets[0]) == (WEEKS[5], "weekly_snapshots")


def test_a_run_killed_before_the_scores_leaves_them_to_be_made() -> None:
    lineage = _home(WEEKS[3:])
    made = {
        key: made
        for key, made in lineage.made.items()
        if key not in [(EVAL_METRICS, WEEKS[5]), ("weekly_report", WEEKS[5])]
    }
    [item] = plan_work(WEEKS, Lineage(lineage.ingested, made), {})
    assert (item.first, item.assets) == (WEEKS[5], (EVAL_METRICS, "weekly_report"))


def test_lists_made_again_are_scored_again() -> None:
    lineage = _home(WEEKS[3:])
    lists = {(PREDICTIONS, WEEKS[3]): AssetRecord("other lists", lineage.made[PREDICTIONS, WEEKS[3]].made_from)}
    items = plan_work(WEEKS, Lineage(lineage.ingested, {**lineage.made, **lists}), {})
    assert [(item.first, item.assets) for item in items] == [
        (WEEKS[3], ("weekly_report",)),
        (WEEKS[4], (EVAL_METRICS, "weekly_report")),
    ]


def test_late_rows_of_an_old_week_make_only_the_newest_lists_stale() -> None:
    lineage = _ingested(_home(WEEKS[3:]), [WEEKS[0]], {WEEKS[0]: "late rows"})
    [item] = plan_work(WEEKS, lineage, {})
    assert (item.first, item.assets) == (WEEKS[5], tuple(UPSTREAM))


def test_an_export_that_was_not_written_is_stale() -> None:
    items = plan_work(WEEKS, _home([WEEKS[5]]), {}, assets=OF_A_WEEK | {"parquet_export"})
    assert [(item.first, item.assets) for item in items] == [(WEEKS[5], ("parquet_export",))]


def test_weeks_that_the_source_no_longer_has_stay() -> None:
    lineage, rest = _home(WEEKS[3:]), {week: f"new {week}" for week in WEEKS[3:]}
    # Of WEEKS[3], the first that it has, it may have lost the first days.
    assert _brief(plan_work(WEEKS, lineage, rest)) == [(REFRESH, week, week, CHANGED) for week in WEEKS[4:]]
    # Rows that are deleted in between are deleted; and so they are before a later start.
    deleted = {WEEKS[0]: DIGESTS[WEEKS[0]], WEEKS[1]: "0-0"}
    assert _brief(plan_work(WEEKS, lineage, deleted))[0] == (INGEST, WEEKS[1], WEEKS[1], CHANGED)
    assert _brief(plan_work(WEEKS[3:], lineage, rest))[0] == (REFRESH, WEEKS[3], WEEKS[3], CHANGED)


def test_a_source_that_ends_before_what_was_published_makes_nothing() -> None:
    assert plan_work(WEEKS[:3], _home(WEEKS[3:]), {}) == []
    assert plan_work(WEEKS[:4], _home(WEEKS[2:]), {WEEKS[3]: "late rows"}) == []


def test_another_policy_or_place_makes_lists_or_exports_stale() -> None:
    asked = {(PREDICTIONS, WEEKS[5]): "open", ("parquet_export", WEEKS[4]): "here"}
    lineage = replace(_home(WEEKS[3:]), settings=lambda asset, week: asked.get((asset, week)))
    assets = OF_A_WEEK | {"parquet_export"}
    assert plan_work(WEEKS, lineage, {}) == []  # what older lists were made under was not recorded
    for asset in (*UPSTREAM, "parquet_export"):
        for week in WEEKS[3:]:
            lineage = _made(lineage, asset, week)
    assert plan_work(WEEKS, lineage, {}, assets=assets) == []
    asked |= {(PREDICTIONS, WEEKS[5]): "strict", ("parquet_export", WEEKS[4]): "there"}
    items = plan_work(WEEKS, lineage, {}, assets=assets)
    assert [(item.first, item.assets) for item in items] == [
        (WEEKS[4], ("parquet_export",)),
        (WEEKS[5], (PREDICTIONS, "weekly_report", "parquet_export")),
    ]


def test_the_key_changes_with_the_rows_of_its_weeks_only() -> None:
    first, again = (plan_work(WEEKS, Lineage(), DIGESTS) for _ in range(2))
    moved = plan_work(WEEKS, Lineage(), DIGESTS | {WEEKS[5]: "other"})
    assert [item.key for item in first] == [item.key for item in again]
    assert first[0].key == moved[0].key
    assert first[1].key != moved[1].key


weeks = st.sets(st.sampled_from(WEEKS)).map(sorted)


@given(weeks, weeks, weeks)
def test_doing_what_is_planned_leaves_nothing(published: list[str], ingested: list[str], changed: list[str]) -> None:
    lineage = _home(published, ingested=sorted({*ingested, *published}))
    source = {week: f"new {week}" if week in changed else DIGESTS[week] for week in WEEKS}
    for _ in range(20):
        items = plan_work(WEEKS, lineage, source)
        if not items:
            break
        assert [item.first for item in items] == sorted(item.first for item in items)
        item = items[0]
        if item.action == INGEST or not item.assets:
            lineage = _ingested(lineage, [week for week in WEEKS if item.first <= week <= item.last], source)
        for asset in item.assets or (UPSTREAM if item.action == REFRESH else ()):
            lineage = _made(lineage, asset, item.first)
    assert plan_work(WEEKS, lineage, source) == []
