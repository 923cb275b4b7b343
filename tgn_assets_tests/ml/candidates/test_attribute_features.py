"""Attribute features worked out by hand, and what they must not know."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tgn_assets.ml.candidates.attribute_features import AttributeFeatures, feature_names
from tgn_assets.ml.candidates.retrieval import candidate_feature_names
from tgn_assets.ml.config import CandidateConfig, RankerConfig
from tgn_assets.ml.data.attribute_files import read_attribute_tables
from tgn_assets.ml.data.attributes import AttributeTables
from tgn_assets.ml.data.interactions import InteractionHistory
from tgn_assets.ml.ranker.training_set import PointInTimeView, truth_after
from tgn_assets.ml.weeks import shift, week_number
from tgn_assets_tests.support.worlds import START, Row, history

ROWS: list[Row] = [("ann", "tea", 0, 1), ("ann", "jam", 2, 1), ("bob", "jam", 2, 1), ("bob", "pie", 2, 1)]
EVENTS = "event_id,shelf,price,made\ntea,drinks,2,2024-01-01\njam,food,4,2024-01-08\npie,food,9,\n"
USERS = "user_id,town,age,joined\nann,Rome,30,2024-01-01\nbob,Bonn,,2024-01-15\n"
ANN, BOB = 0, 1
TEA, JAM, PIE = 0, 1, 2
USUAL = CandidateConfig()
PRIOR = USUAL.category_prior
OLD, NEW = (
    0.5 ** (3 / USUAL.profile_half_life),
    0.5 ** (1 / USUAL.profile_half_life),
)  # of weeks 0 and 2, at the close of week 2


def tables(
    folder: Path, week: int, rows: list[Row] = ROWS, events: str = EVENTS, users: str = USERS
) -> AttributeTables:
    """The tables as of the close of `week`, of the nodes in `rows` up to it."""
    (folder / "events.csv").write_text(events)
    (folder / "users.csv").write_text(users)
    known = history([row for row in rows if row[2] <= week], week)
    first: dict[str, dict[str, int]] = {"user": {}, "event": {}}
    for user, event, at, _ in rows:
        for kind, name in (("user", user), ("event", event)):
            first[kind][name] = min(at, first[kind].get(name, at))

    def nodes(kind: str, size: int) -> pd.DataFrame:
        ids = sorted(first[kind], key=lambda name: (first[kind][name], name))[:size]
        return pd.DataFrame({"idx": np.arange(size), "id": ids})

    return read_attribute_tables(
        str(folder / "events.csv"),
        str(folder / "users.csv"),
        nodes("user", known.num_users),
        nodes("event", known.num_events),
        shift(START, week),
    )


def features(past: InteractionHistory, attributes: AttributeTables, users: list[int], events: list[int]) -> np.ndarray:
    """[p, columns] of the pairs of `users` and `events`."""
    known, row = past.of_users(np.array(users, np.int64)), np.arange(len(users))
    return AttributeFeatures(past, attributes).features(known, row, np.array(events, np.int64))


def value(folder: Path, name: str, user: int, event: int) -> float:
    attributes = tables(folder, 2)
    found = features(history(ROWS, 2), attributes, [user], [event])
    assert found.shape == (1, len(feature_names(attributes.columns))) and found.dtype == np.float32
    return float(found[0, feature_names(attributes.columns).index(name)])


FOOD_SHARE = (3 * NEW + 1) / (OLD + 3 * NEW + 2)  # of everyone's interactions
PRICE_SPREAD = (6.5 - 3) / 1.349  # quartiles of 2, 4, 9


@pytest.mark.parametrize(
    ("name", "user", "event", "expected"),
    [
        ("event.shelf:share", ANN, PIE, (NEW + PRIOR * FOOD_SHARE) / (OLD + NEW + PRIOR)),
        ("event.shelf:share", BOB, PIE, (2 * NEW + PRIOR * FOOD_SHARE) / (2 * NEW + PRIOR)),
        (
            "event.shelf:popularity",
            ANN,
            TEA,
            np.log(
                (0.5 ** (3 / USUAL.category_half_life) + 1)
                / (0.5 ** (3 / USUAL.category_half_life) + 3 * 0.5 ** (1 / USUAL.category_half_life) + 2)
            ),
        ),
        ("event.price:value", ANN, JAM, 0.0),
        ("event.price:value", ANN, PIE, np.arcsinh(5 / PRICE_SPREAD)),
        (
            "event.price:affinity",
            ANN,
            PIE,
            np.arcsinh(5 / PRICE_SPREAD) - OLD * np.arcsinh(-2 / PRICE_SPREAD) / (OLD + NEW),
        ),
        ("event.made:age", BOB, TEA, np.arcsinh(3)),
        ("event.made:age", BOB, PIE, np.nan),
        # ann had tea on the day it was made, and jam when that was a week old.
        (
            "event.made:age_affinity",
            ANN,
            TEA,
            np.arcsinh(3) - (OLD * np.arcsinh(0) + NEW * np.arcsinh(1)) / (OLD + NEW),
        ),
        ("user.age:value", ANN, TEA, 0.0),
        ("user.age:value", BOB, TEA, np.nan),
        ("user.joined:age", BOB, TEA, np.arcsinh(1)),
        ("user.town:lift", ANN, PIE, np.log(PRIOR / (NEW + PRIOR))),
    ],
)
def test_attribute_features_by_hand(name: str, user: int, event: int, expected: float, tmp_path: Path) -> None:
    assert value(tmp_path, name, user, event) == pytest.approx(expected, rel=1e-5, abs=1e-6, nan_ok=True)


FUTURE: list[Row] = [("ann", "jam", 3, 1), ("zoe", "aaa", 3, 2), ("bob", "tea", 4, 1)]
TIMED = """event_id,shelf,price,valid_from
tea,drinks,2,2024-01-01
jam,food,4,2024-01-01
jam,jars,5,2024-01-21T23:59:59.999999
pie,food,9,2024-01-02
"""
LATER = "tea,jars,3,2024-01-22\njam,cellar,cheap,2024-01-22\naaa,cellar,1,2024-01-01\n"


def dataset_bytes(folder: Path, week: int, rows: list[Row], events: str) -> bytes:
    """The dataset of the cut-off at the close of week 2, as the training of `week` sees it, and its cache digest."""
    known = history([row for row in rows if row[2] <= week], week)
    attributes = tables(folder, week, rows, events)
    view = PointInTimeView(known.as_of(week_number(START) + 2), {}, CONFIG, attributes=attributes)
    dataset = view.dataset(np.arange(2), truth_after(known, view.past))
    assert dataset.candidates.features.shape[1] > len(candidate_feature_names(USUAL))
    digest = attributes.digest(view.past.user_idx, view.past.event_idx, view.past.week)
    return dataset.candidates.features.tobytes() + digest.encode()


CONFIG = RankerConfig(candidates=5)


@pytest.mark.parametrize("later", ["", LATER, LATER.replace("jars", "attic").replace(",3,", ",7,")])
def test_later_attribute_rows_leave_no_trace(later: str, tmp_path: Path) -> None:
    past = dataset_bytes(tmp_path, 2, ROWS, TIMED)
    assert dataset_bytes(tmp_path, 2, [*ROWS, *FUTURE], TIMED + later) == past
    # What counted in time does leave one: jam stood among the jars a microsecond before the close.
    assert dataset_bytes(tmp_path, 2, ROWS, TIMED.replace("jars", "food")) != past


def test_later_nodes_leave_no_trace_in_a_timeless_table(tmp_path: Path) -> None:
    past = dataset_bytes(tmp_path, 2, ROWS, EVENTS)
    for more in ("aaa,drinks,1000,2024-01-01\n", "aaa,cellar,dear,soon\n"):
        assert dataset_bytes(tmp_path, 2, [*ROWS, *FUTURE], EVENTS + more) == past


@pytest.mark.parametrize("later", [LATER.replace("cheap", "8"), LATER.replace("cheap", "900").replace("jars", "attic")])
def test_later_training_sees_the_same_point_in_time(later: str, tmp_path: Path) -> None:
    events = TIMED + later
    assert dataset_bytes(tmp_path, 4, [*ROWS, *FUTURE], events) == dataset_bytes(tmp_path, 2, ROWS, TIMED)


def test_attribute_features_of_unknown_nodes_are_nan(tmp_path: Path) -> None:
    attributes = tables(tmp_path, 2, events="event_id,shelf\ntea,drinks\n", users="user_id,town\nann,Rome\n")
    found = features(history(ROWS, 2), attributes, [ANN, BOB], [JAM, TEA])
    np.testing.assert_array_equal(np.isnan(found), [[True, True, False], [False, False, True]])
    assert features(history([], 2), attributes, [], []).shape == (0, 3)
