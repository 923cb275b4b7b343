import pytest

from tgn_assets.ml.config import Batching, GNNConfig
from tgn_assets.ml.encoder import batching
from tgn_assets.ml.encoder.batching import BatchingPlan, plan_batching
from tgn_assets.ml.graph.loaders import SamplerNotInstalled
from tgn_assets.ml.graph.temporal_graph import WindowGraph
from tgn_assets.ml.weeks import week_number
from tgn_assets_tests.support.worlds import START, Row, snapshots

W = week_number(START)
ROWS: list[Row] = [("ann", "tea", 0, 1), ("bob", "tea", 1, 1), ("ann", "jam", 2, 3)]
CONFIG = GNNConfig(dim=8, layers=2, sampler="native")
NODES = 4
TRAINING = 4 * 8 * NODES * 11 + 20 * 2 * (1 + 2)  # vectors, and the edges of both views in both directions
INFERENCE = 4 * 8 * NODES * 9 + 20 * 2 * 3


def planned(config: GNNConfig) -> BatchingPlan:
    """From the views that the weeks 1 and 2 are predicted from, and that of all three weeks."""
    graph = WindowGraph(snapshots(ROWS, range(3)), 1.0)
    return plan_batching(config, training=[graph.view(W, 8), graph.view(W + 1, 8)], inference=graph.view(W + 2, 8))


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (TRAINING, BatchingPlan("full", "full", None)),
        (TRAINING - 1, BatchingPlan("sampled", "full", "native")),
        (INFERENCE - 1, BatchingPlan("sampled", "sampled", "native")),
    ],
)
def test_auto_samples_what_does_not_fit_the_budget(
    monkeypatch: pytest.MonkeyPatch, budget: int, expected: BatchingPlan
) -> None:
    monkeypatch.setattr(batching, "MEMORY_BUDGET", budget)
    assert planned(CONFIG) == expected


def test_users_without_ids_take_less(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "MEMORY_BUDGET", TRAINING - 4 * 8 * 2 * 7)  # two users, seven vectors each
    assert planned(CONFIG.model_copy(update={"max_user_ids": 1})).training == "full"
    assert planned(CONFIG.model_copy(update={"max_user_ids": 2})).training == "sampled"


@pytest.mark.parametrize(("asked", "sampler"), [("full", None), ("sampled", "native")])
def test_what_is_asked_for_is_done_whatever_the_budget(asked: Batching, sampler: str | None) -> None:
    plan = planned(CONFIG.model_copy(update={"batching": asked}))
    assert (plan.training, plan.inference, plan.sampler) == (asked, asked, sampler)


def test_a_sampler_that_is_not_installed_is_refused_even_if_unused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch_geometric.typing.WITH_PYG_LIB", False)
    with pytest.raises(SamplerNotInstalled, match="'pyg-lib' is not installed"):
        planned(CONFIG.model_copy(update={"sampler": "pyg-lib"}))
