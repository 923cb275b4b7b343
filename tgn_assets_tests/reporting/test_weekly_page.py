import re
from dataclasses import replace
from html.parser import HTMLParser
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest

from tgn_assets.ml.connectors.text_file import replace_text
from tgn_assets.ml.data.policy import Policy
from tgn_assets.reporting.weekly_page import headline as headline_module
from tgn_assets.reporting.weekly_page import page as page_module
from tgn_assets.reporting.weekly_page.queries import newest_week, read_facts
from tgn_assets.state.warehouse import Warehouse, WarehouseError
from tgn_assets_tests.support.weekly_reports import HOSTILE, LOG, WEEKS, page_of, warehouse

STYLE = (Path(headline_module.__file__).parent / "style.css").read_text()
TEXT, MARKS = ["ink", "muted", "link", "good", "bad"], ["ours", "second", "third", "fourth", "fifth"]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    return warehouse(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def page(filled: Warehouse) -> str:
    return page_of(filled)


def test_the_headline_compares_with_baseline_and_week_before(filled: Warehouse) -> None:
    headline = headline_module.headline(read_facts(filled, WEEKS[-1]))
    assert (headline.title, headline.tone) == ("Better than the best baseline; better than last week", "better")
    assert "NDCG@5 0.5000 [0.4800, 0.5200] over the 100 users" in headline.sentences[0]
    assert "repeat: +0.2000 [+0.1800, +0.2200]" in headline.sentences[1]
    # The intervals of two weeks with other users add up as squares: 0.02 * sqrt(2).
    assert "+0.2000 [+0.1717, +0.2283]" in headline.sentences[2]
    assert headline.sentences[3] == "2 users have a list for the week of 2024-01-29, each made by the ranker."


def test_the_metric_is_named_by_the_length_of_the_lists(tmp_path: Path) -> None:
    short = warehouse(tmp_path)
    row = {"week": WEEKS[2], "target_week": WEEKS[3], "model_week": WEEKS[2], "k": 3, "users": 2, "distinct_events": 2}
    short.replace_week_tables(WEEKS[2], {"published_weeks": pd.DataFrame([row | {"policy": Policy(k=3).to_json()}])})
    page = page_of(short)
    assert "scored NDCG@3 0.5000" in page and "NDCG@5" not in page


def test_page_compares_scores_with_a_constant_and_lists_with_the_last(tmp_path: Path) -> None:
    some = warehouse(tmp_path)
    values = {
        "brier": 0.06,
        "brier_constant": 0.05,
        "overlap": 0.75,
        "predicted:0.1-0.2": 0.15,
        "observed:0.1-0.2": 0.1,
    }
    rows = [("tgn_assets", segment, metric, value) for metric, value in values.items() for segment in ("all", "new")]
    numbers = pd.DataFrame(rows, columns=["model", "segment", "metric", "value"]).assign(week=WEEKS[-1], users=100)
    ndcg = read_facts(some, WEEKS[-1]).metrics
    few = ndcg[ndcg.metric == "ndcg"].assign(value=0.01, ci_low=0.0, ci_high=0.04)
    lift = ndcg[ndcg.metric == "ndcg_lift"]
    some.replace_week_tables(WEEKS[-1], {"eval_metrics": pd.concat([few, lift, numbers])})
    page = page_of(some)
    assert "The scores were no better than one constant for all pairs (Brier skill score -20.0%)." in page
    assert "Of the events on an active user's list, 75.0% were on that of the week before." in page
    assert "[0.0000, 0.0400]" in page and "±" not in page


def test_users_left_out_are_counted_on_the_page(tmp_path: Path) -> None:
    some = warehouse(tmp_path)
    row = {"week": WEEKS[3], "target_week": "2024-01-29", "model_week": WEEKS[3], "k": 5, "distinct_events": 2}
    some.replace_week_tables(
        WEEKS[3],
        {"published_weeks": pd.DataFrame([row | {"users": 2, "policy": Policy(max_silent_weeks=1).to_json()}])},
    )
    with some.writer() as con:
        con.execute(
            "INSERT INTO users VALUES ('ann', 0, ?), ('bob', 1, ?), ('cat', 2, ?)", [WEEKS[0], WEEKS[0], WEEKS[1]]
        )
    assert "1 user was left out, silent for longer than 1 week." in page_of(some)


def test_page_says_which_numbers_are_over_drawn_users(filled: Warehouse) -> None:
    facts = read_facts(filled, WEEKS[-1])
    drawn = drawn_metrics(facts.metrics, ours=0.45)
    sentences = headline_module.headline(replace(facts, metrics=drawn)).sentences
    assert "scored NDCG@5 0.5000 [0.4800, 0.5200] over the 1,000 users" in sentences[0]
    assert sentences[1].startswith("Compared with the best baseline, repeat with 100 of them, drawn: +0.2000")
    (row,) = page_module._segments(replace(facts, metrics=drawn))
    assert (row["users"], row["ours"], row["baseline_value"]) == (100, 0.45, 0.3)
    assert page_module._drawn(replace(facts, metrics=drawn)) == (100, 1000)
    assert page_module._drawn(facts) is None


def test_page_over_drawn_users_says_so_in_each_section(tmp_path: Path) -> None:
    some = warehouse(tmp_path)
    with some.reader() as con:
        scores = con.execute("SELECT * FROM eval_metrics WHERE week = ?", [WEEKS[-1]]).df()
    bounds = [scores.head(1).assign(model=name) for name in ("ceiling", "candidates", "without_fallback")]
    some.replace_week_tables(WEEKS[-1], {"eval_metrics": drawn_metrics(pd.concat([scores, *bounds]), ours=0.45)})
    page = page_of(some)
    assert "over drawn ones in weeks with many: 100 of 1,000 in this one" in page
    assert "All of this table is over the 100 drawn users, ours as well." in page
    assert "From a perfect list down to ours, over the 100 drawn users." in page
    assert "drawn" not in page_of(warehouse(tmp_path / "all"))


def drawn_metrics(scores: pd.DataFrame, ours: float) -> pd.DataFrame:
    """`scores` of drawn users, of whom our NDCG is `ours`; our own are over ten times as many."""
    ndcg = (scores.model == "tgn_assets") & (scores.metric == "ndcg")
    more = scores.assign(users=scores.users.where(~ndcg, 10 * scores.users))
    return pd.concat([more, scores[ndcg].assign(metric="drawn:ndcg", value=ours)], ignore_index=True)


def test_a_week_without_a_score_says_why(filled: Warehouse) -> None:
    first = headline_module.headline(read_facts(filled, WEEKS[0]))
    assert first.title == "This week has no score"
    assert "the first score comes one week after the first lists" in first.sentences[0]
    assert "run `tgn refresh --week 2024-01-01`" in first.sentences[1]
    assert "It is too early to say what is usual" in page_of(filled, WEEKS[0])


def test_a_week_in_which_nobody_was_active_says_so(filled: Warehouse) -> None:
    facts = read_facts(filled, WEEKS[-1])
    nobody = facts.metrics.assign(value=float("nan"), ci_low=float("nan"), ci_high=float("nan"), users=0)
    assert "Nobody was active" in headline_module.headline(replace(facts, metrics=nobody)).sentences[0]


@pytest.mark.parametrize(
    ("lists", "sentence"),
    [
        ({"tgn_assets": 3, "repeat": 1}, "the ranker made 75% of them, baselines the others (repeat 25%)"),
        ({"popular": 4}, "all from baselines (popular 100%)"),
        ({}, "No user has a list"),
    ],
)
def test_the_headline_says_who_made_the_lists(filled: Warehouse, lists: dict[str, int], sentence: str) -> None:
    assert sentence in headline_module.lists_sentence(replace(read_facts(filled, WEEKS[-1]), lists=lists))


def test_risen_and_fallen_events_are_shares_of_lists(filled: Warehouse) -> None:
    moves = read_facts(filled, WEEKS[-1]).moves
    assert moves[["event_id", "before", "now"]].values.tolist() == [["b", 0.0, 0.5], ["a", 0.5, 0.0]]


def test_a_user_example_has_past_list_and_week(filled: Warehouse) -> None:
    ann = next(example for example in read_facts(filled, WEEKS[-1]).examples if example.user == "ann")
    assert (ann.past, ann.past_weeks, ann.then) == ([("a", 3)], 3, [("a", 1)])
    assert (ann.listed, ann.hits) == ([("a", 0.5, None)], 1)


def test_examples_show_reasons_where_rows_have_one(filled: Warehouse, page: str, tmp_path: Path) -> None:
    assert 'class="reason"' not in page
    reasoned = warehouse(tmp_path)
    with reasoned.writer() as con:
        con.execute("UPDATE weekly_top5_predictions SET reason = 'had <b>twice</b>'")
    assert page_of(reasoned).count('<span class="reason">had &lt;b&gt;twice&lt;/b&gt;</span>') == 2


def test_nothing_newer_than_the_week_is_read(filled: Warehouse, tmp_path: Path) -> None:
    before = page_of(filled, WEEKS[-2])
    later = warehouse(tmp_path)
    with later.writer() as con:
        for table in (
            "raw_interactions",
            "weekly_top5_predictions",
            "eval_metrics",
            "ingested_weeks",
            "rejected_interactions",
        ):
            con.execute(f"DELETE FROM {table} WHERE week > ?", [WEEKS[-2]])
    assert page_of(later, WEEKS[-2]) == before


def test_the_same_warehouse_gives_the_same_bytes(filled: Warehouse, page: str) -> None:
    assert page_of(filled) == page


def test_the_page_says_of_which_log_it_is_and_when_it_was_made(page: str) -> None:
    said = re.sub(r"<[^>]*>", "", page)
    assert "Log https://***@shop.example/log.csv?signature=***: 4 weeks seen, 2024-01-01 to 2024-01-22." in said
    assert f"Made 2024-01-29 06:05 UTC by tgn_assets {version('tgn_assets')}." in said
    assert "s3cret" not in page


def test_rows_are_counted_by_reason_in_the_week_and_so_far(filled: Warehouse, page: str) -> None:
    table = page[page.index('<h2 id="rows">') : page.index('<section aria-labelledby="moves">')]
    rows = re.findall(r'<th scope="row">(.*?)</th><td class="number">(\d+)</td><td class="number">(\d+)</td>', table)
    assert rows == [("accepted", "2", "8"), ("rejected: missing user", "2", "3")]
    assert "As of the newest load, 1 row has no week: unreadable time 1." in table
    early = read_facts(filled, WEEKS[1]).rows
    assert early == [(None, 2, 4), ("missing_user", 0, 1)]


def test_rows_after_the_last_week_are_counted(filled: Warehouse) -> None:
    rows = "INSERT INTO rows_outside_weeks VALUES ('after', NULL, 12), ('before', 'missing_user', 1)"
    with filled.writer() as con:
        con.execute(rows)
    try:
        said = "the log has 12 rows of weeks after TGN_END_WEEK, 1 row of these weeks that cannot be used"
        assert said in page_of(filled)
    finally:
        with filled.writer() as con:
            con.execute("DELETE FROM rows_outside_weeks")


def test_hostile_ids_are_text(page: str) -> None:
    assert HOSTILE not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<script" not in page


def test_the_page_loads_nothing_from_outside(page: str) -> None:
    addresses = set(re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?(?!#)([^"')\s>]+)""", page))
    assert addresses == {"index.html", f"{WEEKS[-2]}.html"}  # links to the pages beside it
    assert not re.search(r"<(?:img|script|link|iframe|object)", page)
    assert "default-src 'none'" in page


def test_tags_headings_and_ids_are_well_formed(page: str) -> None:
    parsed = _Structure()
    parsed.feed(page)
    assert parsed.open == []
    assert parsed.headings[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(parsed.headings))
    assert parsed.headings.count(1) == 1
    assert len(parsed.ids) == len(set(parsed.ids))
    assert parsed.references <= set(parsed.ids)
    assert all(parsed.labels)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_colour_has_enough_contrast(scheme: str) -> None:
    """WCAG 2.2: text 4.5 to 1 (1.4.3), marks of charts 3 to 1 (1.4.11)."""
    light, dark = re.split("prefers-color-scheme: dark", STYLE)
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", dark if scheme == "dark" else light))
    for ground in ("page", "panel"):
        for name in TEXT:
            assert _contrast(colours[name], colours[ground]) >= 4.5, (scheme, name, ground)
    for name in MARKS:
        assert _contrast(colours[name], colours["page"]) >= 3, (scheme, name)


def test_an_unknown_week_and_an_empty_warehouse_are_errors(filled: Warehouse, tmp_path: Path) -> None:
    with pytest.raises(WarehouseError, match="tgn refresh --week 2030-01-07"):
        read_facts(filled, "2030-01-07")
    empty = Warehouse(tmp_path / "warehouse.duckdb")
    with empty.writer():
        pass
    with pytest.raises(WarehouseError, match=r"no lists were published yet.* run `tgn refresh`"):
        newest_week(empty)
    assert newest_week(filled) == WEEKS[-1]


def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_text(tmp_path / "page.html", "old")

    def full(*_: object) -> None:
        raise OSError("No space left on device", "old")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        replace_text(tmp_path / "page.html", "new")
    assert (tmp_path / "page.html").read_text() == "old"


def test_a_numbered_week_is_shown_with_its_number(filled: Warehouse) -> None:
    assert "its week 7 is shown as the week of 2024-01-01" in page_of(
        filled, WEEKS[1], source=replace(LOG, week_number_anchor=(7, WEEKS[0]))
    )


def test_the_numbers_of_the_chart_are_in_a_table_too(page: str) -> None:
    rows = re.findall(r"<tr><th scope=\"row\">2024-01-22</th>(.*?)</tr>", page)
    assert re.findall(r">([\d.]+)<", rows[0]) == ["0.5000", "0.3000"]


class _Structure(HTMLParser):
    VOID = ("meta", "br", "link", "wbr")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[int] = []
        self.ids: list[str] = []
        self.references: set[str] = set()
        self.labels: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag not in self.VOID:
            self.open.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        self.ids += [value for name, value in attrs if name == "id" and value]
        self.references |= {value for name, value in attrs if name == "aria-labelledby" and value}
        if tag == "a" and (place := found["href"] or "").startswith("#"):
            self.references.add(place.removeprefix("#"))
        if found.get("role") == "img" and tag == "div":
            self.labels.append(found.get("aria-label") or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value for name, value in attrs if name == "id" and value]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def _contrast(one: str, other: str) -> float:
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
