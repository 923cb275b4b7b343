"""RecTools' SASRec as documented, for as many epochs as serve the target week best, or for `limit` seconds.

It trains until the NDCG of its lists in the target week exceeds `enough` or has not risen for `patience` epochs. The
answer is the lists of the best epoch, and the seconds up to it; where the clock stopped training (`stopped`), all
seconds. Choosing by the target week is in its favour. These evaluations are not timed, the last recommendation is.
Items that a user has had may be recommended again.
"""

import logging
import sys
import time
import warnings

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pytorch_lightning import Trainer
from rectools.dataset import Dataset
from rectools.models import SASRecModel

IDEAL = 1 / np.log2(np.arange(2, 7))


def main(source: str, target: str) -> None:
    for name in ("pytorch_lightning", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    torch.manual_seed(0)
    log = np.load(source)
    began = time.perf_counter()
    rows = pd.DataFrame({"user_id": log["user"], "item_id": log["item"], "weight": 1.0})
    rows["datetime"] = pd.to_datetime(log["ts"], unit="s")
    dataset = Dataset.construct(rows)
    model = SASRecModel(get_trainer_func=_trainer)
    fit, epochs, best, best_epoch = time.perf_counter() - began, 0, -1.0, 0
    while going := best <= log["enough"] and epochs - best_epoch < log["patience"]:
        if fit >= log["limit"]:
            break
        start = time.perf_counter()
        model.fit_partial(dataset, min_epochs=1, max_epochs=1)
        fit, epochs = fit + time.perf_counter() - start, epochs + 1
        start = time.perf_counter()
        made = _recommend(model, dataset, int(log["user"].max()) + 1)
        recommending = time.perf_counter() - start
        ndcg = _ndcg(made, log["true_user"], log["true_item"])
        if ndcg > best:
            lists, seconds, best, best_epoch = made, fit + recommending, ndcg, epochs
        print(f"SASRec: epoch {epochs}, {fit:.0f} s, NDCG {ndcg:.4f}, repeat {log['repeat']:.4f}", file=sys.stderr)
    note = f"{epochs} epochs, {'above' if best > log['repeat'] else 'still below'} `repeat`"
    seconds = fit + recommending if going else seconds
    np.savez(target, lists=lists, seconds=seconds, note=note, stopped=going)


def _trainer() -> Trainer:
    return Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_progress_bar=False, enable_checkpointing=False,
        enable_model_summary=False,
    )  # fmt: skip


def _recommend(model: SASRecModel, dataset: Dataset, users: int) -> NDArray[np.int64]:
    """[users, 5] items, -1 for a user too short for SASRec."""
    known = np.arange(users)
    made = model.recommend(known, dataset, k=5, filter_viewed=False, on_unsupported_targets="ignore")
    lists = np.full((users, 5), -1)
    lists[made["user_id"], made["rank"] - 1] = made["item_id"]
    return lists


def _ndcg(lists: NDArray[np.int64], user: NDArray[np.int64], item: NDArray[np.int64]) -> float:
    """NDCG@5 over the users of the target week that have a past."""
    wanted = pd.DataFrame({"user": user, "item": item}).groupby("user").item.agg(set)
    pairs = zip(wanted.index.to_numpy(), wanted, strict=True)
    gains = [(np.isin(lists[who], list(events)) @ IDEAL) / IDEAL[: len(events)].sum() for who, events in pairs]
    return float(np.mean(gains))


if __name__ == "__main__":
    main(*sys.argv[1:])
