"""A short version of `make chaos`."""

from pathlib import Path

import pytest

from benchmarks.chaos import KILL, Campaign, Fault

STRUCK = [
    (KILL, "before rename artifacts/trained_ranker"),
    (KILL, "before replace current.duckdb"),
    ("ENOSPC", "before write_text reports"),
]


@pytest.mark.e2e
def test_a_week_survives_kills_and_errors(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path)
    names = campaign.points()
    for kind, place in STRUCK:
        at = next(at for at, name in enumerate(names) if name.startswith(place))
        assert campaign.strike(Fault(at, kind, names[at])) == "", (kind, place)
