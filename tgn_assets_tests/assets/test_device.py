"""TGN_DEVICE=cuda without a GPU: that every stage keeps its tensors together, and makes what the CPU makes."""

import numpy as np
import pytest
import torch

from benchmarks.profiling.gpu import Stopwatch, run_week, synthetic_log
from tgn_assets.ml.config import GNNConfig, RankerConfig
from tgn_assets.ml.processor import processor
from tgn_assets.ml.sources.synthetic import World
from tgn_assets.state.resources import Device
from tgn_assets_tests.support.pretend_gpu import place, pretend_gpu

GNN = GNNConfig(window=3, replay=2, epochs=2, warm_epochs=1, batch_size=64)
RANKER = RankerConfig(origins=2, sequence=2, epochs=2, networks=2)


def test_pretend_gpu_refuses_mixed_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    here = torch.ones(3)
    with pretend_gpu(monkeypatch):
        there = here.to("cuda")
        assert there.device.type == "cuda" and here.device.type == "cpu"
        assert (2 * there).sum().item() == 6.0
        assert place(there[torch.tensor([0, 1])]) == "cuda"
        for mixed in (lambda: here + there, lambda: torch.cat([here, there]), lambda: here[there > 0]):
            with pytest.raises(RuntimeError, match="same device"):
                mixed()
        for converted in (there.numpy, lambda: np.asarray(there)):
            with pytest.raises(TypeError, match="cuda:0"):
                converted()
        assert there.cpu().numpy().tolist() == [1.0, 1.0, 1.0]


def test_every_stage_gives_the_same_on_gpu_and_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    history, snapshots = synthetic_log(World(users=40, events=30), weeks=5)
    on_cpu = run_week(history, snapshots, watch=Stopwatch(), device="cpu", gnn=GNN, config=RANKER)
    with pretend_gpu(monkeypatch) as gpu:
        assert Device(setting="auto").name() == "cuda"
        on_gpu = run_week(history, snapshots, watch=Stopwatch(), device="cuda", gnn=GNN, config=RANKER)
    assert gpu.operations > 1000
    assert (on_cpu.ranker.processor, on_gpu.ranker.processor) == (processor("cpu"), "a simulated GPU")
    for name, value in on_cpu.ranker.state.items():
        assert torch.equal(on_gpu.ranker.state[name], value), name
        assert place(on_gpu.ranker.state[name]) == "cpu"  # a checkpoint can be read where there is no GPU
    for week, known in on_cpu.embedding_history.items():
        assert torch.equal(on_gpu.embedding_history[week].users, known.users)
        assert {place(x) for x in (on_gpu.embedding_history[week].users, on_gpu.embedding_history[week].events)} == {
            "cpu"
        }
    assert np.array_equal(on_gpu.lists.events, on_cpu.lists.events)
    assert np.array_equal(on_gpu.lists.scores, on_cpu.lists.scores)
