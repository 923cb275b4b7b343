"""Where a text names an id, how sure that is, and the text without it."""

import json

import pytest

from tgn_assets.forget.spelling import REPLACEMENT, Ids, spellings

LONG, SHORT = Ids(["user-1x"]), Ids(["17"])


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("user-1x", 1),
        ("the list of user-1x.", 1),
        ("user_id=user-1x, user:user-1x", 2),
        ("user-1xy, xuser-1x, a-user-1x, user-1x-a", 0),
        ("<td>user-1x</td>", 1),
    ],
)
def test_a_distinctive_id_counts_as_a_word(text: str, count: int) -> None:
    assert LONG.count(text) == count
    assert LONG.without(text).count(REPLACEMENT) == count


@pytest.mark.parametrize(
    ("text", "sure", "maybe"),
    [
        ("17", 1, 1),
        ("took 17 s", 0, 1),
        ("2024-01-17 10:17:00", 0, 1),
        ("user '17' has", 1, 1),
        ("<b>17</b>", 1, 1),
        ("177 and 0.17", 0, 0),
    ],
)
def test_a_short_id_counts_as_a_value_or_between_quotes(text: str, sure: int, maybe: int) -> None:
    assert (SHORT.count(text), SHORT.count(text, surely=False)) == (sure, maybe)


def test_json_is_searched_by_value_and_keeps_its_structure() -> None:
    event = {
        "__class__": "Event",
        "partition": "17",
        "step_key": "17",
        "data": {"user_id": "17", "n": 17, "inner": json.dumps({"list": ["17", "18"]})},
    }
    text = json.dumps(event)
    assert SHORT.count_in_json(text) == 2
    clean = json.loads(SHORT.without_in_json(text))
    assert (clean["partition"], clean["step_key"], clean["data"]["n"]) == ("17", "17", 17)
    assert clean["data"]["user_id"] == REPLACEMENT
    assert json.loads(clean["data"]["inner"]) == {"list": [REPLACEMENT, "18"]}


@pytest.mark.parametrize("name", ["quo\"te's-1", "Jürgen-ß1", "back\\slash-1", "<b>&-12", "tab\t-123", "bidi-\u202e12"])
def test_spellings_cover_what_files_write(name: str) -> None:
    from html import escape

    for text in (name, json.dumps(name), json.dumps(json.dumps(name)), repr(name), escape(name)):
        assert Ids([name]).are_in(text), text
    assert len(set(spellings(name))) == len(spellings(name))
