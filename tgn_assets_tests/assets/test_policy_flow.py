"""Weeks through Dagster under a policy, with side tables, and from a model that is pinned."""

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest
from click.testing import CliRunner, Result

from tgn_assets.cli.main import cli
from tgn_assets.ml.data.policy import Policy
from tgn_assets.ml.sources.synthetic import World, generate_week
from tgn_assets.reporting.terminal import at_length, newest_score, sample_table, score_text
from tgn_assets.settings import Settings
from tgn_assets.state.artifact_store import ArtifactStore
from tgn_assets.state.home import Home
from tgn_assets_tests.support.deployment import PREDICTIONS, WEEKS, Deployment, failure_of, without_pictures


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Three weeks with lists of three, without own events, two events excluded and no less than nine in all lists; of
    events and users something is known beside the log."""
    folder = tmp_path_factory.mktemp("strict")
    world = World(users=30, events=20, communities=3)
    log = pd.concat([generate_week(week, world) for week in WEEKS])
    log.columns = ["ip_address", "event_id", "timestamp"]
    log.to_csv(folder / "log.csv", index=False)
    known = sorted(log.event_id[log.timestamp < WEEKS[1]].unique())
    (folder / "deny.txt").write_text(known[0] + "\n")
    (folder / "expiry.csv").write_text(f"event_id,expires_at\n{known[1]},{WEEKS[3]}\n{known[2]},2031-01-01\n")
    names = sorted(log.event_id.unique())
    events = pd.DataFrame({"event_id": names, "letter": [name[0] for name in names], "valid_from": WEEKS[0]})
    events.assign(length=events.event_id.str.len()).to_parquet(folder / "events.parquet")
    users = pd.DataFrame({"user_id": [*sorted(log.ip_address.unique())[1:], "nobody"]})
    users.assign(net=users.user_id.str.split(".").str[1]).to_csv(folder / "users.csv", index=False)
    settings = Settings(
        _env_file=None,
        home=folder / "home",
        source=str(folder / "log.csv"),
        end_week=WEEKS[-1],
        k=3,
        repeats="exclude",
        deny_events=str(folder / "deny.txt"),
        event_expiry=str(folder / "expiry.csv"),
        min_distinct_events=9,
        event_features=str(folder / "events.parquet"),
        user_features=str(folder / "users.csv"),
    )
    with dg.DagsterInstance.ephemeral() as instance:
        deployment = Deployment(Home(settings), instance)
        with pytest.MonkeyPatch.context() as patch:
            without_pictures(patch)
            patch.setenv("MLFLOW_TRACKING_URI", (folder / "mlflow").as_uri())
            patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
            for week in WEEKS[:3]:
                assert deployment.run(week).success
        yield deployment


def excluded(home: Home) -> tuple[str, str]:
    folder = Path(home.settings.source).parent
    return (folder / "deny.txt").read_text().strip(), (folder / "expiry.csv").read_text().splitlines()[1].split(",")[0]


def test_lists_follow_length_and_exclusions(strict: Deployment) -> None:
    denied, expired = excluded(strict.home)
    for week in WEEKS[:3]:
        lists, had = strict.table(PREDICTIONS, week), strict.table("raw_interactions", WEEKS[0])
        assert lists["rank"].max() == 3
        assert denied not in set(lists.event_id)
        assert not set(map(tuple, had[["user_id", "event_id"]].to_numpy())) & set(
            map(tuple, lists[["user_id", "event_id"]].to_numpy())
        )
    # It expires as the week of WEEKS[3] starts: out of the lists for it, not out of those before.
    assert expired in set(strict.table(PREDICTIONS, WEEKS[0]).event_id) | set(
        strict.table(PREDICTIONS, WEEKS[1]).event_id
    )
    assert expired not in set(strict.table(PREDICTIONS, WEEKS[2]).event_id)


def test_published_weeks_records_policy_as_of_the_week(strict: Deployment) -> None:
    denied, expired = excluded(strict.home)
    for week, gone in ((WEEKS[0], set()), (WEEKS[2], {expired})):
        row = strict.table("published_weeks", week).iloc[0]
        assert (row.k, row.model_week.date(), row.target_week.date()) == (
            3,
            date.fromisoformat(week),
            date.fromisoformat(WEEKS[WEEKS.index(week) + 1]),
        )
        lists = strict.table(PREDICTIONS, week)
        assert row.distinct_events == lists.event_id.nunique() >= 9
        assert row.users == lists.user_id.nunique()
        policy = Policy.from_json(row.policy)
        assert (policy.repeats, policy.deny, set(policy.expires)) == ("exclude", {denied}, gone)


def test_lists_are_scored_under_their_own_policy(strict: Deployment) -> None:
    scores = strict.table("eval_metrics", WEEKS[2])
    assert {"tgn_assets", "ceiling", "repeat"} <= set(scores.model)
    # Nobody's own events are shown: repeating is what is popular.
    ndcg = scores[(scores.metric == "ndcg") & (scores.segment == "all")].set_index("model").value
    assert ndcg["repeat"] == ndcg["popular"]
    warehouse = strict.home.warehouse()
    assert "NDCG@3" in score_text(newest_score(warehouse, WEEKS[2]) or {})
    assert at_length("MAP@5", warehouse, [WEEKS[1], WEEKS[2]]) == "MAP@3"
    assert [column.title for column in sample_table(warehouse, WEEKS[2]).columns] == ["user", "1", "2", "3", "source"]


def test_mlflow_run_per_week_gets_its_score(strict: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    from mlflow import MlflowClient  # which takes a second to import

    client = MlflowClient(tracking_uri=(strict.home.root.parent / "mlflow").as_uri())
    (experiment,) = (found for found in client.search_experiments() if found.name == "tgn_assets")
    runs = {run.info.run_name: run.data.metrics for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == set(WEEKS[:3])
    scores = strict.table("eval_metrics", WEEKS[2])
    ours = scores[(scores.metric == "ndcg") & (scores.segment == "all") & (scores.model == "tgn_assets")]
    assert runs[WEEKS[1]]["next_week.ndcg.all.tgn_assets"] == pytest.approx(ours.value.item())
    assert "next_week.ndcg.all.tgn_assets" not in runs[WEEKS[2]]


@pytest.mark.parametrize("every", [False, True])
def test_a_policy_without_an_event_fails_and_keeps_the_lists(strict: Deployment, every: bool) -> None:
    deny = Path(str(strict.home.settings.deny_events))
    kept, before = deny.read_text(), strict.table(PREDICTIONS, WEEKS[2])
    with strict.home.warehouse().reader() as con:
        names = [name for (name,) in con.execute("SELECT event_id FROM events").fetchall()]
    deny.write_text("\n".join([*names, ""] if every else ["", ""]))
    try:
        result = strict.run(WEEKS[2], PREDICTIONS, raise_on_error=False)
    finally:
        deny.write_text(kept)
    said = failure_of(result, PREDICTIONS)
    assert ("leaves none of the" if every else "holds no event id") in said
    pd.testing.assert_frame_equal(strict.table(PREDICTIONS, WEEKS[2]), before)


def test_ranker_trains_on_attribute_tables(strict: Deployment) -> None:
    ranker = ArtifactStore(strict.home.artifacts).load("trained_ranker", WEEKS[2])
    assert ranker.attributes == (
        ("event", "letter", "category"),
        ("event", "length", "number"),
        ("user", "net", "number"),
    )
    event = strict.instance.get_latest_materialization_event(dg.AssetKey("trained_ranker"))
    shown = event.asset_materialization.metadata if event and event.asset_materialization else {}
    assert shown["attribute_coverage/events"].value == 1
    assert 0.9 < float(str(shown["attribute_coverage/users"].value)) < 1
    columns = shown["attribute_columns"]
    assert isinstance(columns, dg.TableMetadataValue)
    assert columns.records[0].data == {"table": "event", "column": "letter", "taken_as": "category", "known": 1.0}
    assert "users.csv has no column valid_from" in str(shown["attribute_notes"].value)


def test_missing_attribute_column_stops_lists_not_scores(
    strict: Deployment,
) -> None:
    assert strict.run(WEEKS[3], "raw_interactions").success
    file, before = Path(str(strict.home.settings.event_features)), strict.table(PREDICTIONS, WEEKS[2])
    kept = file.read_bytes()
    pd.read_parquet(file).drop(columns="letter").to_parquet(file)
    try:
        result = strict.run(WEEKS[2], PREDICTIONS, raise_on_error=False)
        assert strict.run(WEEKS[3], "eval_metrics").success
        assert "without_fallback" not in set(strict.table("eval_metrics", WEEKS[3]).model)
    finally:
        file.write_bytes(kept)
    said = failure_of(result, PREDICTIONS)
    assert "letter of TGN_EVENT_FEATURES, a category" in said and "materialize trained_ranker" in said
    pd.testing.assert_frame_equal(strict.table(PREDICTIONS, WEEKS[2]), before)
    assert strict.run(WEEKS[3], "eval_metrics").success
    assert "without_fallback" in set(strict.table("eval_metrics", WEEKS[3]).model)


def test_silent_users_are_left_out_and_scored_apart(strict: Deployment) -> None:
    settings = strict.home.settings.model_copy(update={"max_silent_weeks": 0, "evaluation_users": 5})
    choosy, own = Deployment(Home(settings), strict.instance), strict.table(PREDICTIONS, WEEKS[2])
    try:
        assert choosy.run(WEEKS[2], PREDICTIONS).success
        lists, active = (set(choosy.table(table, WEEKS[2]).user_id) for table in (PREDICTIONS, "raw_interactions"))
        assert lists == active < set(own.user_id)
        assert Policy.from_json(choosy.table("published_weeks", WEEKS[2]).policy[0]).max_silent_weeks == 0
        event = choosy.instance.get_latest_materialization_event(dg.AssetKey(PREDICTIONS))
        shown = event.asset_materialization.metadata if event and event.asset_materialization else {}
        assert shown["users_left_out"].value == own.user_id.nunique() - len(active)
        assert choosy.run(WEEKS[3], "raw_interactions").success and choosy.run(WEEKS[3], "eval_metrics").success
        scores = choosy.table("eval_metrics", WEEKS[3])
        users = scores[(scores.model == "tgn_assets") & (scores.segment == "all")].set_index("metric").users
        back = set(choosy.table("raw_interactions", WEEKS[3]).user_id)
        assert (users["ndcg"], users["drawn:ndcg"]) == (len(back), 5)
        apart = scores[(scores.model == "tgn_assets") & (scores.segment == "left_out")].set_index("metric").users
        assert apart["ndcg"] == len((back & set(own.user_id)) - active)
    finally:
        assert strict.run(WEEKS[2], PREDICTIONS).success
    pd.testing.assert_frame_equal(strict.table(PREDICTIONS, WEEKS[2]), own)


def test_pinned_model_publishes_later_weeks_only(strict: Deployment) -> None:
    store = ArtifactStore(strict.home.artifacts)
    own = strict.table(PREDICTIONS, WEEKS[2])
    store.pin(WEEKS[1])
    try:
        assert [store.model_week(week) for week in WEEKS[:3]] == [WEEKS[0], WEEKS[1], WEEKS[1]]
        assert strict.run(WEEKS[2], PREDICTIONS).success
        pinned = strict.table("published_weeks", WEEKS[2]).iloc[0]
        assert pinned.model_week.date() == date.fromisoformat(WEEKS[1])
        # What the pinned model had before the fallback is looked into when its lists are scored.
        assert strict.run(WEEKS[3]).success
        assert store.load("trained_ranker", WEEKS[3]).week == WEEKS[3], "training goes on"
        assert strict.table("published_weeks", WEEKS[3]).model_week[0].date() == date.fromisoformat(WEEKS[1])
    finally:
        store.pin(None)
    assert all(strict.run(week, PREDICTIONS).success for week in WEEKS[2:])
    pd.testing.assert_frame_equal(strict.table(PREDICTIONS, WEEKS[2]), own)


def test_pin_across_a_cold_start_is_refused(strict: Deployment) -> None:
    store = ArtifactStore(strict.home.artifacts)
    meta = store.directory("trained_gnn", WEEKS[2]) / "meta.json"
    kept = meta.read_text()
    meta.write_text(kept.replace(f'"warm_from": "{WEEKS[1]}"', '"warm_from": null'))
    store.pin(WEEKS[1])
    try:
        result = strict.run(WEEKS[2], PREDICTIONS, raise_on_error=False)
    finally:
        meta.write_text(kept)
        store.pin(None)
    assert "tgn models unpin" in failure_of(result, PREDICTIONS)


def environment(home: Home) -> dict[str, str]:
    """The settings of `home` as environment variables."""
    values = {name: getattr(home.settings, name) for name in home.settings.model_fields_set}
    return {f"TGN_{name.upper()}": str(value) for name, value in values.items()}


def test_rollback_publishes_from_the_model_before(strict: Deployment) -> None:
    def tgn(*arguments: str) -> Result:
        return CliRunner(env=environment(strict.home)).invoke(cli, arguments)

    with strict.home.warehouse().reader() as con:
        newest = con.execute("SELECT strftime(max(week), '%Y-%m-%d') FROM published_weeks").fetchall()[0][0]
    own, before = strict.table(PREDICTIONS, newest), WEEKS[WEEKS.index(newest) - 1]
    result = tgn("models", "rollback")
    assert result.exit_code == 0, result.output
    assert f"the lists of {newest} now come from the model of {before}" in result.stdout
    assert "`tgn refresh --if-needed`, or the sensor, makes their report and exports again" in result.stdout
    assert strict.table("published_weeks", newest).model_week[0].date() == date.fromisoformat(before)
    assert ArtifactStore(strict.home.artifacts).pinned() == before
    assert "is no longer pinned" in tgn("models", "unpin").stdout
    assert "no model was pinned" in tgn("models", "unpin").stdout
    assert strict.run(newest, PREDICTIONS).success
    assert len(strict.table(PREDICTIONS, newest)) == len(own)


def test_failed_rollback_changes_nothing(strict: Deployment) -> None:
    store = ArtifactStore(strict.home.artifacts)
    newest = max(week for week in WEEKS if store.directory("temporal_embeddings", week).exists())
    model = store.directory("trained_ranker", newest) / "meta.json"
    kept, before = model.read_text(), strict.table(PREDICTIONS, newest)
    model.write_text("{")
    try:
        result = CliRunner(env=environment(strict.home)).invoke(cli, ["models", "rollback"])
    finally:
        model.write_text(kept)
    assert result.exit_code == 1 and "is damaged" in result.stderr
    assert store.pinned() is None
    pd.testing.assert_frame_equal(strict.table(PREDICTIONS, newest), before)
