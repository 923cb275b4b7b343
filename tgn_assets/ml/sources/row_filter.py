"""An SQL condition on the columns of a source: checked to be a condition and nothing else, then made to fit a file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

from tgn_assets.ml.connectors.duckdb_session import confine, connect
from tgn_assets.ml.safe_text import listed, shortened
from tgn_assets.ml.sources.spec import SourceError

SETTING = "TGN_ROW_FILTER"
# The line break ends a comment that the text may end with.
QUERY = "SELECT 1 FROM source_rows WHERE (\n{condition}\n)"
ALLOWED = {
    *("COLUMN_REF", "CONSTANT", "COMPARISON", "CONJUNCTION", "OPERATOR", "BETWEEN", "CASE", "CAST", "TYPE", "COLLATE"),
    *("FUNCTION", "LAMBDA"),
}
"""What an expression may be made of."""
NAMES = {"SUBQUERY": "a query", "WINDOW": "a window function", "STAR": "a star", "PARAMETER": "a parameter"}
MOST_TERMS, MOST_CHARACTERS, SHOWN = 1000, 1_000_000, 200
LONG_REMEDY = "write many values as id IN ('a', 'b'), or put them into a table and join the log with it beforehand"


@lru_cache(maxsize=8)
def check_filter(condition: str) -> str:
    """`condition`, if it is one SQL expression that looks at nothing but its row, and gives the same answer always.

    SourceError for another statement or a second one, a query within, an unknown function, or one such as now(),
    random() or an aggregate, and for one so long that it would slow each reading down.
    """
    if len(condition) > MOST_CHARACTERS:
        raise _refused(condition, f"it is longer than {MOST_CHARACTERS:,} characters; {LONG_REMEDY}")
    tree = _tree(condition)
    condition_node = tree["statements"][0]["node"]["where_clause"]
    if condition_node.get("function_name") == "row":  # what DuckDB takes empty brackets, or a comma, for
        raise _refused(condition, "it is empty, or more than one expression")
    nodes = list(_nodes(condition_node))
    if (terms := sum(node["class"] not in ("CONSTANT", "COLUMN_REF") for node in nodes)) > MOST_TERMS:
        raise _refused(condition, f"it has {terms:,} comparisons and the like, more than {MOST_TERMS:,}; {LONG_REMEDY}")
    for node in nodes:
        if node["class"] not in ALLOWED:
            raise _refused(condition, f"it has {NAMES.get(node['class'], node['class'].lower())} in it")
        if node["class"] == "FUNCTION" and not (node["is_operator"] or node["function_name"].lower() in _functions()):
            raise _refused(condition, f"{node['function_name']} is no function of the values of one row alone")
    return condition


@lru_cache(maxsize=8)
def filter_columns(condition: str) -> tuple[str, ...]:
    """The columns that the condition names, as it spells them."""
    nodes = _nodes(_tree(condition)["statements"][0]["node"]["where_clause"])
    # Of a.b, `a` is the column and `b` a member of it.
    return tuple(dict.fromkeys(node["column_names"][0] for node in nodes if node["class"] == "COLUMN_REF"))


def renamed(condition: str, names: dict[str, str]) -> str:
    """The condition as SQL, with each of its columns under the name that `names` gives it."""
    tree = _tree(condition)
    for node in _nodes(tree["statements"][0]["node"]["where_clause"]):
        if node["class"] == "COLUMN_REF":
            node["column_names"][0] = names[node["column_names"][0]]
    with confine(connect()) as con:
        (sql,) = con.execute("SELECT json_deserialize_sql($tree::JSON)", {"tree": json.dumps(tree)}).fetchall()[0]
    return sql.split(" WHERE ", 1)[1]


def unknown_column(condition: str, name: str, file: str, columns: Iterable[str]) -> SourceError:
    """The error for a `condition` on a column that `file` does not have."""
    lacks = f"names {name!r}, which {file} has not; its columns are {listed(columns)}"
    text = f"; as a text, write '{name}' in single quotes" if f'"{name}"' in condition else ""
    return SourceError(f"{SETTING}={briefly(condition)} {lacks}{text}")


def briefly(condition: str) -> str:
    """`condition` for a message: a long one is cut."""
    return shortened(condition, SHOWN)


@lru_cache(maxsize=8)
def _parsed(condition: str) -> str:
    with confine(connect()) as con:
        ask = "SELECT json_serialize_sql($query)"
        return con.execute(ask, {"query": QUERY.format(condition=condition)}).fetchall()[0][0]


def _tree(condition: str) -> dict[str, Any]:
    try:
        tree, plain = json.loads(_parsed(condition)), json.loads(_parsed("true"))
    except RecursionError:
        raise _refused(condition, "it is nested too deeply") from None
    if tree["error"]:
        raise _refused(condition, tree["error_message"].splitlines()[0])
    if _without_condition(tree) != _without_condition(plain):
        raise _refused(condition, "it is more than one condition")
    return tree


def _without_condition(tree: dict[str, Any]) -> str:
    """All of a statement but its WHERE: who closes the bracket and goes on leaves something there."""
    bare = json.loads(json.dumps(tree), object_hook=lambda node: node | {"query_location": 0})
    for statement in bare["statements"]:
        statement["node"].pop("where_clause", None)
    return json.dumps(bare, sort_keys=True)


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """All expressions, from the outside in."""
    if isinstance(tree, dict):
        if "class" in tree:
            yield tree
        for value in tree.values():
            yield from _nodes(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _nodes(value)


@lru_cache(maxsize=1)
def _functions() -> frozenset[str]:
    """Scalar functions whose every variant depends on its arguments alone."""
    query = """
        SELECT function_name FROM duckdb_functions() WHERE schema_name IN ('main', 'pg_catalog') GROUP BY ALL
        HAVING bool_and(function_type = 'scalar' AND stability = 'CONSISTENT' AND NOT has_side_effects)
           AND NOT starts_with(function_name, '__')
    """
    with connect() as con:
        return frozenset(name.lower() for (name,) in con.execute(query).fetchall())


def _refused(condition: str, reason: str) -> SourceError:
    return SourceError(
        f"{SETTING}={briefly(condition)} cannot be used: {reason}. It must be one SQL condition on the columns of the "
        "source, such as event_type = 'click' AND country <> 'XX'"
    )
