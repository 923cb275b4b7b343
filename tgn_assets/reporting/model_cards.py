"""A card for every week's trained model: how it was made, its validation, and the score of its lists."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tgn_assets.ml.config import flatten
from tgn_assets.ml.recommend.published import read_publication_record
from tgn_assets.ml.safe_text import SafeError
from tgn_assets.ml.schema import OURS
from tgn_assets.ml.weeks import shift, span_of
from tgn_assets.reporting.tables import Column, ResultTable, digits, shown
from tgn_assets.reporting.terminal import Scores, pooled_scores, weeks_with_lists
from tgn_assets.state.artifact_store import ArtifactStore, check_publishable
from tgn_assets.state.warehouse import Warehouse

GNN, RANKER = "trained_gnn", "trained_ranker"


class ModelError(SafeError, LookupError):
    """A model that does not exist or cannot be used for this; the message says which one and what to do."""


@dataclass(frozen=True)
class ModelCard:
    """The encoder and the ranker trained at the close of `week`."""

    week: str
    warm_from: str | None  # the week whose encoder this one was warm-started from; None: a cold start
    encoder_epochs: int
    ranker_epochs: int  # of all networks of the ranker together
    parameters: int  # values in the tensors of encoder and ranker; LightGBM's trees do not count
    size: int  # bytes on disk
    sources: Mapping[str, str]  # segment of users -> `tgn_assets`, or the baseline whose list they get
    validation: Mapping[str, float]  # `ndcg_<model>` on the newest closed week, which training held out
    config: Mapping[str, Any]  # `<asset>.<field>` of the configurations, and the columns of attribute tables
    processors: Sequence[str]  # kinds that trained encoder and ranker; the same bytes are promised on one kind of CPU
    score: float | None  # NDCG of the lists published in that week, once their target week has closed

    @property
    def best_baseline(self) -> tuple[str, float] | None:
        """The name and validation NDCG of the best baseline; None where nothing was held out."""
        ours = (f"ndcg_{OURS}", "ndcg_network", "ndcg_lambdarank")
        baselines = {name.removeprefix("ndcg_"): value for name, value in self.validation.items() if name not in ours}
        return max(baselines.items(), key=lambda item: item[1]) if baselines else None


def model_cards(store: ArtifactStore, warehouse: Warehouse, weeks: Sequence[str] | None = None) -> list[ModelCard]:
    """The cards of `weeks` (None: of every week that has both an encoder and a ranker), oldest first.

    ModelError for a week without a model, ArtifactError for a damaged one.
    """
    for week in sorted(weeks or ()):
        _require_model(store, week)
    chosen = sorted(set(weeks)) if weeks else trained_weeks(store)
    return [_card(store, week, pooled_scores(warehouse, [shift(week, 1)])) for week in chosen]


def check_pin(store: ArtifactStore, week: str) -> None:
    """ModelError unless there is a trained model of `week`; ArtifactError unless lists can be published from it."""
    _require_model(store, week)
    check_publishable(store, trained_weeks(store)[-1], week)


def _require_model(store: ArtifactStore, week: str) -> None:
    if week not in (there := trained_weeks(store)):
        have = f"there are models of {span_of(there)}" if there else "there are none yet: run `tgn refresh`"
        raise ModelError(f"there is no trained model of week {week}; {have}")


def rollback_target(store: ArtifactStore, warehouse: Warehouse) -> tuple[str, str]:
    """(the newest published week, the week of the model before the one that published it).

    ModelError if nothing was published, or from the oldest model there is.
    """
    with warehouse.reader() as con:
        if not (published := weeks_with_lists(con)):
            raise ModelError("nothing was published yet, so there is nothing to roll back; run `tgn refresh`")
        newest = published[-1]
        model_week = read_publication_record(con, newest).model_week
    if not (earlier := [week for week in trained_weeks(store) if week < model_week]):
        raise ModelError(f"the lists of {newest} come from the model of {model_week}, and there is none before it")
    return newest, earlier[-1]


def trained_weeks(store: ArtifactStore) -> list[str]:
    """The weeks that have both an encoder and a ranker in this version's format, oldest first."""
    both = set(store.weeks(GNN)) & set(store.weeks(RANKER))
    return sorted(week for week in both if not any(store.is_outdated(asset, week) for asset in (GNN, RANKER)))


def models_table(cards: Sequence[ModelCard]) -> ResultTable:
    """A row per model."""
    columns = [
        Column("week", "week"),
        Column("warm_from", "warm start", lambda week: week or "cold", drop=3),
        Column("encoder_epochs", "encoder epochs", drop=6),
        Column("ranker_epochs", "ranker epochs", drop=7),
        Column("parameters", "parameters", drop=8),
        Column("bytes", "MB", lambda size: f"{size / 1e6:.1f}", drop=9),
        Column("validation_ndcg", "validation NDCG"),
        Column("best_baseline", "best baseline", drop=4),
        Column("best_baseline_ndcg", "its NDCG", drop=5),
        Column("sources", "lists from", ", ".join, drop=2),
        Column("processors", "processor", ", ".join, drop=10),
        Column("score", "NDCG of its lists"),
    ]
    return ResultTable("models by week", columns, [_row(card) for card in cards])


def _row(card: ModelCard) -> dict[str, Any]:
    best, best_ndcg = card.best_baseline or (None, None)
    return {
        "week": card.week,
        "warm_from": card.warm_from,
        "encoder_epochs": card.encoder_epochs,
        "ranker_epochs": card.ranker_epochs,
        "parameters": card.parameters,
        "bytes": card.size,
        "validation_ndcg": card.validation.get(f"ndcg_{OURS}"),
        "best_baseline": best,
        "best_baseline_ndcg": best_ndcg,
        "sources": sorted(set(card.sources.values())),
        "processors": [*card.processors],
        "score": card.score,
    }


def comparison_table(one: ModelCard, other: ModelCard) -> ResultTable:
    """A row for everything that differs between two models: numbers, with their difference, and configuration."""
    rows = []
    for name, left, right in _differing(one, other):
        both = isinstance(left, int | float) and isinstance(right, int | float)
        rows.append({"name": name, "first": left, "second": right, "difference": right - left if both else None})
    columns = [
        Column("name", ""),
        Column("first", one.week, _shown),
        Column("second", other.week, _shown),
        Column("difference", "difference", _signed, drop=1),
    ]
    return ResultTable("models compared", columns, rows)


def _differing(one: ModelCard, other: ModelCard) -> Iterator[tuple[str, Any, Any]]:
    for name in ("warm_from", "encoder_epochs", "ranker_epochs", "parameters", "size"):
        yield name.replace("_", " "), getattr(one, name), getattr(other, name)
    yield "NDCG of its lists", one.score, other.score
    if one.processors != other.processors:
        yield "processor", ", ".join(one.processors), ", ".join(other.processors)
    for name in sorted({*one.validation, *other.validation}):
        yield f"validation {name}", one.validation.get(name), other.validation.get(name)
    for name in sorted({*one.sources, *other.sources}):
        yield f"lists of {name} users", one.sources.get(name), other.sources.get(name)
    for name in sorted({*one.config, *other.config}):
        if one.config.get(name) != other.config.get(name):
            yield name, str(one.config.get(name)), str(other.config.get(name))


def _signed(change: float | None) -> str:
    if change is None:
        return ""
    return f"{change:+,}" if isinstance(change, int) else f"{'+' if change > 0 else ''}{digits(change)}"


def _shown(value: Any) -> str:
    return "none" if value is None else shown(value)


def _card(store: ArtifactStore, week: str, scores: Scores) -> ModelCard:
    from tgn_assets.ml.artifact_io import count_numbers, load_meta

    gnn, ranker = (store.directory(asset, week) for asset in (GNN, RANKER))
    of_gnn, of_ranker = load_meta(gnn), load_meta(ranker)
    ours = scores.get((OURS, "all", "ndcg"))
    config = {
        f"{asset}.{name}": value
        for asset, meta in ((GNN, of_gnn), (RANKER, of_ranker))
        for name, value in flatten(meta["config"]).items()
    }
    return ModelCard(
        week=week,
        warm_from=of_gnn["warm_from"],
        encoder_epochs=sum(entry["cutoff"] == week for entry in of_gnn["curve"]),
        ranker_epochs=len(of_ranker["curve"]),
        parameters=count_numbers(gnn, "state.") + count_numbers(ranker),
        size=sum(path.stat().st_size for folder in (gnn, ranker) for path in folder.iterdir()),
        sources=of_ranker["fallback"]["source"],
        validation=of_ranker["validation"],
        config=config | {f"attribute {node}.{name}": kind for node, name, kind in of_ranker["attributes"]},
        processors=sorted({meta.get("processor") or "unknown" for meta in (of_gnn, of_ranker)}),
        score=ours.value if ours else None,
    )
