"""How good the published lists were, beside the baselines, and what each part of the system adds.

    python -m benchmarks.quality HOME...

Each HOME is a `TGN_HOME` that `tgn backtest` has filled. Prints a Markdown table per home: NDCG@5 over all active users
of all evaluated weeks with 95% intervals over users, and what changes when one part is left out (paired,
over the same users). "Retrained" means that the ranker was trained without the part; the others lose it after training.
The peer is `benchmarks/peers/lambdarank.py`, with last week's popular list for users without a past. A second table has
the pooled rows of `eval_metrics` about candidate recall and calibration. If the homes used attribute files, name the
same files. If the source was the synthetic world, `--synthetic` adds two upper bounds: an oracle that knows the world
but for chance, and a Bayes oracle that infers the users' habits from the history.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.quality.comparison import PUBLISHED, Comparison
from tgn_assets.ml.arrays import FloatArray, IntArray
from tgn_assets.ml.evaluation.intervals import clustered_interval, paired_comparison
from tgn_assets.ml.sources.synthetic import World
from tgn_assets.state.artifact_store import ArtifactStore
from tgn_assets.state.warehouse import Warehouse

POOLED_SQL = """
    SELECT CASE WHEN metric = 'ndcg' THEN model ELSE metric END AS name,
           sum(value * users) / sum(users), sum(users)::BIGINT
    FROM eval_metrics
    WHERE users > 0 AND (
        metric = 'ndcg' AND segment = 'all' AND model IN ('candidates', 'ceiling')
        OR starts_with(metric, 'candidate_recall') OR segment = 'all' AND (
            starts_with(metric, 'brier') OR starts_with(metric, 'predicted') OR starts_with(metric, 'observed')
        )
    )
    GROUP BY ALL ORDER BY ALL
"""


def main() -> None:
    """Prints the tables of every home given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("homes", nargs="+", type=Path, metavar="HOME")
    parser.add_argument("--published-only", action="store_true", help="leave no part out: no ranker is trained")
    for node in ("event", "user"):
        parser.add_argument(f"--{node}-features", metavar="FILE", help=f"what TGN_{node.upper()}_FEATURES was")
    parser.add_argument("--synthetic", action="store_true", help="the homes' source was `synthetic`")
    given = parser.parse_args()
    for home in given.homes:
        warehouse = Warehouse(home / "warehouse.duckdb")
        comparison = Comparison(
            warehouse,
            ArtifactStore(home / "artifacts"),
            attribute_files=(given.event_features, given.user_features),
            world=World() if given.synthetic else None,
            ablations=not given.published_only,
        )
        weeks = list(comparison.weeks())
        print("\n".join([*table(home.name, weeks), *pooled_metrics(warehouse)]), flush=True)


def table(title: str, weeks: Sequence[tuple[pd.Index, Mapping[str, FloatArray]]]) -> Iterator[str]:
    """Markdown from the NDCG@5 of the active users of each week by the name of the lists; intervals are over users."""
    user, users = pd.factorize(np.concatenate([active.to_numpy(object) for active, _ in weeks]))
    values = {name: np.concatenate([ndcg[name] for _, ndcg in weeks]) for name in weeks[0][1]}
    number, ours = np.bincount(user).astype(float), _sums(user, values[PUBLISHED])
    yield f"### {title}\n\n{len(users):,} users, {len(user):,} times active in {len(weeks)} weeks.\n"
    yield "| lists | NDCG@5 | 95% interval | against ours | 95% interval |\n|---|---|---|---|---|"
    for name, ndcg in values.items():
        sums = _sums(user, ndcg)
        low, high = (float(limit[0]) for limit in clustered_interval(sums[:, None], number))
        line = f"| {name} | {ndcg.mean():.4f} | {low:.4f} to {high:.4f} |"
        if name == PUBLISHED:
            yield f"{line} | |"
            continue
        gap = paired_comparison(sums, ours, number)
        yield f"{line} {gap.relative:+.1%} | {gap.ci_low:+.4f} to {gap.ci_high:+.4f} |"
    yield ""


def _sums(user: IntArray, values: FloatArray) -> FloatArray:
    return np.bincount(user, values).astype(float)


def pooled_metrics(warehouse: Warehouse) -> Iterator[str]:
    """Markdown of the rows of `eval_metrics` that are no list's NDCG, pooled over the weeks."""
    yield "| of `eval_metrics` | value | users or pairs |\n|---|---|---|"
    with warehouse.reader() as con:
        for name, value, users in con.execute(POOLED_SQL).fetchall():
            yield f"| {name} | {value:.4f} | {users:,} |"
    yield ""


if __name__ == "__main__":
    main()
