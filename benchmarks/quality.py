"""How good the published lists were, beside the baselines, and what each part of the system adds.

    python -m benchmarks.quality HOME...

Each HOME is a `TGN_HOME` that `tgn backtest` has filled. Prints a Markdown table per home: NDCG@5 over all active users
of all scored weeks with 95% intervals (bootstrap over users), and what changes when one part is left out (paired, over
the same users). "Trained anew" means that the ranker learnt without the part; the others lose it after training. The
peer is `benchmarks/peers/lambdarank.py`, with last week's popular list for users without a past. Then
what `eval_metrics` says about what could be reached and about the scores as probabilities. Where the homes had side
tables, name the same files. Where the log was the synthetic world, `--synthetic` adds whoever knows all of it but its
luck, and whoever must infer habits from the history: the part of that which can be reached.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks import synthetic_bayes_oracle, synthetic_oracle
from benchmarks.peers import lambdarank
from tgn_assets.ml.data.attribute_files import read_attribute_tables
from tgn_assets.ml.data.attributes import NO_ATTRIBUTES, AttributeTables
from tgn_assets.ml.encoder.embeddings import NodeEmbeddings
from tgn_assets.ml.evaluation.baselines import all_baselines, popular
from tgn_assets.ml.evaluation.evaluate import event_codes, published_lists
from tgn_assets.ml.evaluation.metrics import mean_interval, paired_bootstrap, per_user
from tgn_assets.ml.ranker.checkpoint import RankerCheckpoint
from tgn_assets.ml.ranker.train import temporal_embeddings, train_ranker
from tgn_assets.ml.ranker.training_set import EmbeddingHistory
from tgn_assets.ml.recommend.publish import read_nodes, read_publication, read_truth
from tgn_assets.ml.recommend.top_k import diagnose
from tgn_assets.ml.schema import K
from tgn_assets.ml.sources.synthetic import World
from tgn_assets.ml.weeks import shift, week_key
from tgn_assets.state.artifact_store import ArtifactStore, load_embedding_history
from tgn_assets.state.warehouse import Warehouse

PUBLISHED = "ours, as published"
ANCHOR = "recall + LambdaRank on 8 origins (a peer)"
Files = tuple[str | None, str | None]

PAST_SQL = "SELECT user_id, event_id, epoch(ts)::BIGINT AS ts FROM raw_interactions WHERE week <= $week ORDER BY ts"

KEPT_SQL = """
    SELECT CASE WHEN metric = 'ndcg' THEN model ELSE metric END AS name,
           sum(value * users) / sum(users), sum(users)::BIGINT
    FROM eval_metrics
    WHERE users > 0 AND (
        metric = 'ndcg' AND segment = 'all' AND model IN ('candidates', 'ceiling')
        OR starts_with(metric, 'candidate_recall') OR starts_with(metric, 'brier')
        OR starts_with(metric, 'predicted') OR starts_with(metric, 'observed')
    )
    GROUP BY ALL ORDER BY ALL
"""


def main() -> None:
    """Prints the table of every home given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("homes", nargs="+", type=Path, metavar="HOME")
    parser.add_argument("--published-only", action="store_true", help="leave nothing out in turn: no ranker is trained")
    for node in ("event", "user"):
        parser.add_argument(f"--{node}-features", metavar="FILE", help=f"what TGN_{node.upper()}_FEATURES was")
    parser.add_argument("--synthetic", action="store_true", help="the homes' source was `synthetic`")
    given = parser.parse_args()
    files = given.event_features, given.user_features
    world = World() if given.synthetic else None
    for home in given.homes:
        warehouse, artifacts = Warehouse(home / "warehouse.duckdb"), ArtifactStore(home / "artifacts")
        weeks = list(_weeks(warehouse, artifacts, not given.published_only, files, world))
        print("\n".join([*table(home.name, weeks), *kept(warehouse)]), flush=True)


def kept(warehouse: Warehouse) -> Iterator[str]:
    """Markdown of the pooled rows of `eval_metrics` that are no list's NDCG."""
    yield "| of `eval_metrics` | value | users or pairs |\n|---|---|---|"
    with warehouse.reader() as con:
        for name, value, users in con.execute(KEPT_SQL).fetchall():
            yield f"| {name} | {value:.4f} | {users:,} |"
    yield ""


def table(title: str, weeks: list[dict[str, np.ndarray]]) -> Iterator[str]:
    """Markdown from the NDCG of each active user under each name, week by week."""
    values = {name: np.concatenate([week[name] for week in weeks]) for name in weeks[0]}
    ours = values[PUBLISHED]
    yield f"### {title}\n\n{len(ours):,} active users in {len(weeks)} weeks.\n"
    yield "| lists | NDCG@5 | 95% interval | against ours | 95% interval |\n|---|---|---|---|---|"
    for name, ndcg in values.items():
        low, high = (float(limit[0]) for limit in mean_interval(ndcg[:, None]))
        line = f"| {name} | {ndcg.mean():.4f} | {low:.4f} to {high:.4f} |"
        if name == PUBLISHED:
            yield f"{line} | |"
            continue
        gap = paired_bootstrap(ndcg, ours)
        yield f"{line} {gap.relative:+.1%} | {gap.ci_low:+.4f} to {gap.ci_high:+.4f} |"
    yield ""


def _weeks(
    warehouse: Warehouse, artifacts: ArtifactStore, ablations: bool, files: Files, world: World | None
) -> Iterator[dict[str, np.ndarray]]:
    with warehouse.reader() as con:
        scored = con.execute("SELECT DISTINCT strftime(week, '%Y-%m-%d') FROM eval_metrics ORDER BY 1").fetchall()
    earlier = dict[str, RankerCheckpoint]()
    for (week,) in scored:
        yield _scores(warehouse, artifacts, week, ablations, files, world, earlier)


def _scores(
    warehouse: Warehouse,
    artifacts: ArtifactStore,
    week: str,
    ablations: bool,
    files: Files,
    world: World | None,
    earlier: dict[str, RankerCheckpoint],
) -> dict[str, np.ndarray]:
    """NDCG@5 [n] of the active users of `week` by name of the lists.

    `earlier` holds the rankers of the week before that were trained for the comparison, and is given those of this
    week: they go on from one another as the real ones do.
    """
    origin = shift(week, -1)
    with warehouse.reader() as con:
        published, truth = read_publication(con, origin), read_truth(con, week)
        users, events = read_nodes(con, origin)
    truth = truth[["user_id", "event_id"]].drop_duplicates()
    history = warehouse.history(origin)
    active, row = np.unique(truth.user_id.to_numpy(object), return_inverse=True)
    new_user_list = list(published.new_users.event_id)
    codes = event_codes(events.id.to_numpy(object), published.predictions.event_id, new_user_list, truth.event_id)
    event, user = codes.get_indexer(pd.Index(truth.event_id)), pd.Index(users.id).get_indexer(pd.Index(active))

    def ndcg(lists: np.ndarray) -> np.ndarray:
        return per_user(lists, row, event).ndcg.to_numpy()

    own_lists = published.predictions[published.predictions.user_id.isin(active)]
    shown = published_lists(own_lists, new_user_list, pd.Index(active), codes, K)
    for_new = published_lists(own_lists[:0], new_user_list, pd.Index(active), codes, K)

    attributes = read_attribute_tables(*files, users, events, origin)

    def own(of: RankerCheckpoint, known: EmbeddingHistory) -> np.ndarray:
        made, seen = for_new.copy(), np.flatnonzero(user >= 0)
        diagnostics = diagnose(history, of, known, temporal_embeddings(of, history, known), attributes=attributes)
        made[seen] = diagnostics.lists(user[seen])
        return made

    newcomer = (user < 0)[:, None]
    variants = {PUBLISHED: shown, "new users by popularity": np.where(newcomer, popular(history, K), shown)}
    if world is not None:
        # The interests of a user whom nobody has met yet are no ranker's to know: such a user keeps our list.
        seen, first = np.flatnonzero(user >= 0), week_key(int(history.week_no.min()))
        present = active[seen].tolist()
        for name, chances in {
            "all but luck known (oracle)": synthetic_oracle.touch_probabilities(week, present, world),
            "all but luck and habits known (historian)": synthetic_bayes_oracle.touch_probabilities(
                week, present, first, world
            ),
        }.items():
            variants[name] = shown.copy()
            variants[name][seen] = codes.get_indexer(synthetic_oracle.likeliest(*chances, events.id).ravel()).reshape(
                -1, K
            )
    if ablations:
        ranker = artifacts.load("trained_ranker", origin)
        embedding_history = load_embedding_history(
            artifacts, origin, ranker.config.origins + ranker.config.sequence + 1
        )
        blind = {
            key: NodeEmbeddings(key, known.user_idx[:0], known.users[:0], known.event_idx[:0], known.events[:0])
            for key, known in embedding_history.items()
        }
        unlinked = {key: replace(known, link_users=None, link_events=None) for key, known in embedding_history.items()}

        def trained(name: str, known: EmbeddingHistory, attributes: AttributeTables) -> np.ndarray:
            before = earlier.get(name) if ranker.warm_from else None
            earlier[name] = train_ranker(
                history, known, origin, config=ranker.config, attributes=attributes, earlier=before
            )
            return own(earlier[name], known)

        variants |= {
            "without the gate": own(ranker, embedding_history),
            "without the graph (trained anew)": trained("graph", blind, attributes),
            "without the link regression (trained anew)": trained("links", unlinked, attributes),
            "Transformer switched off": own(_silenced(ranker, "gate"), embedding_history),
            "network alone": own(replace(ranker, booster=""), embedding_history),
            "trees alone": own(
                _silenced(ranker, "gate", "feature_mlp.4.weight", "feature_mlp.4.bias"), embedding_history
            ),
        }
        if attributes.columns:
            variants["without side tables (trained anew)"] = trained("side", embedding_history, NO_ATTRIBUTES)
        with warehouse.reader() as con:
            past = con.execute(PAST_SQL, {"week": origin}).df()
        who, what = pd.Index(users.id).get_indexer(pd.Index(past.user_id)), codes.get_indexer(pd.Index(past.event_id))
        theirs, _ = lambdarank.recommend(who, what, past.ts.to_numpy(), int(np.datetime64(week, "s").astype(np.int64)))
        variants[ANCHOR] = np.where(newcomer, popular(history, K), theirs[user])
    baselines = {f"*{name}*": made for name, made in all_baselines(history, user).items()}
    print(f"{week}: done", file=sys.stderr, flush=True)
    return {name: ndcg(made) for name, made in (variants | baselines).items()}


def _silenced(ranker: RankerCheckpoint, *names: str) -> RankerCheckpoint:
    """The ranker with the weights `names` of each network set to zero."""
    ends = tuple(f".{name}" for name in names)
    silent = {name: torch.zeros_like(value) for name, value in ranker.state.items() if name.endswith(ends)}
    return replace(ranker, state=ranker.state | silent)


if __name__ == "__main__":
    main()
