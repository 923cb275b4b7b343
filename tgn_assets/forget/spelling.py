"""Where a text names an id: as a whole, between quotes or tags, or as a word; and the text without it.

How sure a find is depends on the id. `user-zq81` stands nowhere by chance. `17`, or a name such as `maria`, may be a
number or a word of the text: it counts where it is the whole value, or stands between quotes or tags, and elsewhere it
is a find that may be by chance.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from functools import cached_property
from html import escape
from typing import Any
from urllib.parse import quote

from tgn_assets.ml.safe_text import printable, shortened

REPLACEMENT = "(forgotten)"
DISTINCTIVE = 6
"""Characters of an id that does not stand in a text by chance; one of letters alone, or of digits alone, may."""
DISTINCTIVE_NUMBER = 9
STRUCTURE = {
    *("__class__", "__enum__", "asset_key", "backfill_id", "check_name", "column_name", "dagster_event_type"),
    *("event_type_value", "job_name", "label", "logging_tags", "mode", "name", "op_name", "partition"),
    *("pipeline_name", "run_id", "snapshot_id", "solid_handle", "status", "step_handle", "step_key"),
    *("step_kind_value", "type"),
}
"""Members of Dagster's JSON, and columns of its tables, that name parts of the program and never an id."""
JOINERS = r"[-.@+~#%&$*]"
"""Between two letters or digits, they may be inside of a longer id."""
JSON_DEPTH = 20


def is_distinctive(name: str) -> bool:
    """Whether the id `name` hardly stands in a text, or in the bytes of numbers, by chance.

    >>> [is_distinctive(name) for name in ("user-zq81", "10.0.0.17", "17", "17850", "maria", "Jürgen")]
    [True, True, False, False, False, True]
    """
    if name.isascii() and name.isdigit():
        return len(name) >= DISTINCTIVE_NUMBER
    return len(name.encode()) >= DISTINCTIVE and not (name.isascii() and name.isalpha())


def spellings(name: str) -> list[str]:
    """How files may write the id `name`: as it is, escaped for terminals, JSON, HTML, Python or a URL, or shortened.

    >>> spellings('a"b')
    ['a"b', 'a\\\\"b', 'a\\\\\\\\\\\\"b', 'a&quot;b', 'a&#34;b', 'a%22b']
    """
    shown = printable(name)
    found = [name, shown, repr(name)[1:-1]]
    for ascii_only in (True, False):
        once = json.dumps(name, ensure_ascii=ascii_only)[1:-1]
        found += [once, json.dumps(once, ensure_ascii=ascii_only)[1:-1]]
    for text in (shown, shortened(shown)):
        found += [text, escape(text), escape(text).replace("&quot;", "&#34;").replace("&#x27;", "&#39;")]
    return list(dict.fromkeys([*found, quote(name, safe="")]))


class Ids:
    """The ids `names` of one kind, to be found in texts."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = frozenset(names)

    @cached_property
    def needles(self) -> list[str]:
        """All spellings: a text that holds none of them names no id."""
        return sorted({text for name in self.names for text in spellings(name)}, key=lambda text: (-len(text), text))

    @cached_property
    def raw_needles(self) -> list[bytes]:
        """The spellings that do not stand in a file of numbers by chance."""
        return [text.encode(errors="surrogatepass") for text in self.needles if is_distinctive(text)]

    @cached_property
    def _any(self) -> re.Pattern[str]:
        return re.compile("|".join(map(re.escape, self.needles)))

    @cached_property
    def _sure(self) -> re.Pattern[str]:
        plain = [text for name in self.names if not is_distinctive(name) for text in spellings(name)]
        words = [text for name in self.names if is_distinctive(name) for text in spellings(name)]
        parts = [rf"(?<=[\"'`>])(?:{_either(plain)})(?=\\?[\"'`<])"] if plain else []
        return re.compile("|".join([*parts, *([_word(words)] if words else [])]))

    @cached_property
    def _maybe(self) -> re.Pattern[str]:
        return re.compile(_word(self.needles))

    def are_in(self, text: str) -> bool:
        """Whether `text` has a spelling of an id, be it inside of another word."""
        return self._any.search(text) is not None

    def count(self, text: str, *, surely: bool = True) -> int:
        """How often `text` names one of the ids; if not `surely`, words that may be so by chance count as well."""
        if text in self.names or text in self.needles:
            return 1
        return sum(1 for _ in (self._sure if surely else self._maybe).finditer(text)) if self.are_in(text) else 0

    def without(self, text: str) -> str:
        """`text` with `REPLACEMENT` in the place of each id that it surely names."""
        if text in self.names or text in self.needles:
            return REPLACEMENT
        return self._sure.sub(REPLACEMENT, text) if self.are_in(text) else text

    def count_in_json(self, text: str, *, surely: bool = True) -> int:
        """`count` over the strings of the JSON `text`, but for what is `STRUCTURE`; over `text` if it is no JSON."""
        if not self.are_in(text):
            return 0
        if (value := _parsed(text)) is None:
            return self.count(text, surely=surely)
        counts = list[int]()

        def count(leaf: str) -> str:
            counts.append(self.count(leaf, surely=surely))
            return leaf

        _mapped(value, count)
        return sum(counts)

    def without_in_json(self, text: str) -> str:
        """`without` for each string of the JSON `text`, but for what is `STRUCTURE`; for `text` if it is no JSON."""
        if not self.are_in(text):
            return text
        if (value := _parsed(text)) is None:
            return self.without(text)
        clean = _mapped(value, self.without)
        return text if clean == value else json.dumps(clean)


def _either(texts: Iterable[str]) -> str:
    return "|".join(map(re.escape, sorted(set(texts), key=lambda text: (-len(text), text))))


def _word(texts: Iterable[str]) -> str:
    """A pattern for `texts` where they are no part of a longer word."""
    return rf"(?<!\w)(?<!\w{JOINERS})(?:{_either(texts)})(?!\w)(?!{JOINERS}\w)"


def _parsed(text: str) -> Any:
    """The object or array that `text` is as JSON; None if it is neither."""
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _mapped(value: Any, change: Callable[[str], str], depth: int = 0) -> Any:
    """`value` with each string in it changed, and in JSON that one of them holds; names of members are among them."""
    if isinstance(value, str):
        inner = _parsed(value) if depth < JSON_DEPTH else None
        if inner is None:
            return change(value)
        clean = _mapped(inner, change, depth + 1)
        return value if clean == inner else json.dumps(clean)
    if isinstance(value, dict):
        named = change if "__class__" not in value else str  # else they are fields of Dagster's
        return {
            named(name): item if name in STRUCTURE else _mapped(item, change, depth) for name, item in value.items()
        }
    return [_mapped(item, change, depth) for item in value] if isinstance(value, list) else value
