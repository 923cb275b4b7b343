"""A few of the damaged sources of `make chaos`."""

import pytest

from benchmarks.mutated_sources import ACCEPTED, in_children, try_files

pytestmark = pytest.mark.e2e


def test_damaged_sources_are_read_or_refused_by_name() -> None:
    outcomes = list(try_files(range(24), seed=7))
    assert [one for one in outcomes if one.kind not in ACCEPTED] == []
    assert {one.kind for one in outcomes} == set(ACCEPTED)


def test_damaged_sources_are_the_same_in_children() -> None:
    alone = [(one.number, one.name, one.kind) for one in try_files(range(4), seed=1)]
    assert [(one.number, one.name, one.kind) for one in in_children(4, seed=1)] == alone
