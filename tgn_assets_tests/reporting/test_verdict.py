from tgn_assets.reporting.verdict import Difference, signed, verdict
from tgn_assets_tests.support.weekly_reports import metrics


def test_the_verdict_has_interval_and_best_baseline() -> None:
    assert verdict(metrics("2024-01-22", 0.5, 0.3), "NDCG@5") == (
        "NDCG@5 0.5000 [0.4800, 0.5200] over 100 active users: better than the best baseline, repeat "
        "(+0.2000 [+0.1800, +0.2200])"
    )


def test_the_verdict_of_an_interval_is_that_of_the_row() -> None:
    skewed = metrics("2024-01-22", 0.01, 0.01)
    skewed.loc[0, ["ci_low", "ci_high"]] = [0.0, 0.05]
    assert verdict(skewed, "NDCG@3") == (
        "NDCG@3 0.0100 [0.0000, 0.0500] over 100 active users: no clear difference from the best baseline, repeat "
        "(0.0000 [\u22120.0200, +0.0200])"
    )
    assert verdict(skewed.head(0), "NDCG@3") == "no score: nobody was active in this week"


def test_an_interval_that_contains_zero_is_no_difference() -> None:
    found = [Difference(0.1, *interval).word for interval in ((-0.1, 0.3), (0.05, 0.2), (float("nan"),) * 2)]
    assert found == ["same", "better", "unknown"]
    assert Difference(-0.1, -0.2, -0.05).word == "worse"
    assert str(Difference(-0.1, float("nan"), float("nan"))) == "\u22120.1000"


def test_a_value_that_rounds_to_zero_has_no_sign() -> None:
    assert [signed(value) for value in (-0.00001, 0.0, 0.1, -0.1)] == [
        "0.0000",
        "0.0000",
        "+0.1000",
        "\u22120.1000",
    ]
