"""What each asset of each week was made from, kept in the warehouse: the one truth about which work is pending.

It does not matter which Dagster instance ran a week, or whether its history is still there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Set
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from hashlib import file_digest, sha256
from pathlib import Path
from typing import TYPE_CHECKING

from tgn_assets.ml.weeks import shift

if TYPE_CHECKING:
    import duckdb

RAW, SNAPSHOTS = "raw_interactions", "weekly_snapshots"
PREDICTIONS, EVAL_METRICS = "weekly_top5_predictions", "eval_metrics"
REPORT = "weekly_report"
"""The last asset of a week."""
HISTORY = "history"
"""All rows up to a week. Rows that arrive late make the newest week stale, and not every week in between."""
SETTINGS = "settings"
"""What the settings ask of an asset: of lists the policy, of an export the location."""

UPSTREAM: Mapping[str, Mapping[str, int]] = {
    SNAPSHOTS: {RAW: 0, HISTORY: 0},
    "trained_gnn": {SNAPSHOTS: 0, HISTORY: 0},
    "trained_ranker": {"trained_gnn": 0},
    "temporal_embeddings": {"trained_ranker": 0},
    PREDICTIONS: {"temporal_embeddings": 0},
    EVAL_METRICS: {RAW: 0, PREDICTIONS: -1, HISTORY: -1},
    REPORT: {PREDICTIONS: 0, EVAL_METRICS: 0},
}
"""asset -> what it is made from -> the week of that, from its own; in the order in which a week makes them.

The models of earlier weeks are not among it: a week that is run again changes the lists of that week only.
"""
TIMES = "first_made_at, replaced, digest, made_at"
OF_LISTS = UPSTREAM[REPORT]
"""What an asset is made from that shows or exports the lists and scores of a week."""


@dataclass(frozen=True)
class AssetRecord:
    """What an asset of a week holds, and what was upstream of it when it was made: digests."""

    digest: str
    made_from: Mapping[str, str | None]


@dataclass(frozen=True)
class Lineage:
    """What a home has ingested and made."""

    ingested: Mapping[str, str] = field(default_factory=dict)
    """week -> digest of its rows."""
    made: Mapping[tuple[str, str], AssetRecord] = field(default_factory=dict)
    """(asset, week) -> what it holds."""
    settings: Callable[[str, str], str | None] = lambda _asset, _week: None
    """(asset, week) -> digest of what the settings ask of it now; None where that is no reason to make it again."""

    @property
    def published(self) -> Set[str]:
        """The weeks that have lists."""
        return {week for asset, week in self.made if asset == PREDICTIONS}

    def digest(self, asset: str, week: str) -> str | None:
        """Of what `asset` holds for `week`; None if nothing."""
        if asset == RAW:
            return self.ingested.get(week)
        if asset == HISTORY:
            return digest_of(json.dumps(sorted(item for item in self.ingested.items() if item[0] <= week)).encode())
        made = self.made.get((asset, week))
        return made.digest if made else None

    def upstream(self, asset: str, week: str) -> dict[str, str | None]:
        """What `asset` of `week` would be made from now."""
        rows = {name: self.digest(name, shift(week, offset)) for name, offset in upstream_of(asset).items()}
        asked = self.settings(asset, week)
        return rows if asked is None else {**rows, SETTINGS: asked}

    def stale(self, week: str, assets: Set[str], *, newest: bool) -> list[str]:
        """Those of `assets` that were not made for `week`, or from something else than there is now, in order.

        `newest` says whether it is the newest closed week, whose lists are to know every row.
        """
        stale: list[str] = []
        for asset in (*UPSTREAM, *sorted(assets - UPSTREAM.keys())):
            made = self.made.get((asset, week))
            now = self.upstream(asset, week)
            matches = made is not None and all(
                made.made_from.get(name, digest if name == SETTINGS else None) == digest
                for name, digest in now.items()
                if newest or name != HISTORY
            )
            # What is made in the same run is newer than what was there.
            again = any(name in stale for name, offset in upstream_of(asset).items() if offset == 0)
            if asset in assets and (again or not matches):
                stale.append(asset)
        return stale


def upstream_of(asset: str) -> Mapping[str, int]:
    """What `asset` is made from -> the week of that, from its own."""
    return UPSTREAM.get(asset, OF_LISTS)


def read_lineage(con: duckdb.DuckDBPyConnection) -> Lineage:
    """What the warehouse `con` records."""
    ingested = con.execute("SELECT strftime(week, '%Y-%m-%d'), digest FROM ingested_weeks").fetchall()
    made = con.execute("SELECT asset, strftime(week, '%Y-%m-%d'), digest, made_from FROM made_weeks").fetchall()
    return Lineage(
        dict(ingested),
        {(asset, week): AssetRecord(digest, json.loads(made_from)) for asset, week, digest, made_from in made},
    )


def record_made(
    con: duckdb.DuckDBPyConnection, asset: str, digests: Mapping[str, str], *, settings: str | None = None
) -> None:
    """Records that `asset` holds, for each week, the digest in `digests`, made from what is upstream now and under
    what the digest `settings` says (None: they do not matter).
    """
    lineage, now = read_lineage(con), datetime.now(UTC).replace(tzinfo=None)
    for week, digest in digests.items():
        key = [date.fromisoformat(week), asset]
        made_from = lineage.upstream(asset, week) | ({} if settings is None else {SETTINGS: settings})
        before = con.execute(f"DELETE FROM made_weeks WHERE week = ? AND asset = ? RETURNING {TIMES}", key).fetchone()
        first, times, held = (before[0] or now, before[1] or 0, before[2:]) if before else (now, 0, (digest, now))
        same = held[0] == digest
        row = [*key, digest, json.dumps(made_from), held[1] if same else now, first, times + (not same)]
        con.execute("INSERT INTO made_weeks VALUES (?, ?, ?, ?, ?, ?, ?)", row)


def carry_over(con: duckdb.DuckDBPyConnection, before: Lineage, cleaned: Collection[str]) -> None:
    """Makes everything match what is upstream of it now if it matched it `before`: what changed since, rows of
    forgotten ids that were taken out, is no reason to make anything again. What did not match stays as it is.

    So does an export at a location whose digest is not among those `cleaned`: it is written anew once it is set again.
    """
    after = read_lineage(con)
    for (asset, week), made in after.made.items():
        if asset not in UPSTREAM and made.made_from.get(SETTINGS) not in cleaned:
            continue
        then, now = before.upstream(asset, week), after.upstream(asset, week)
        carried = {
            name: now[name] if name in now and then.get(name) == of else of for name, of in made.made_from.items()
        }
        if carried != made.made_from:
            key = [date.fromisoformat(week), asset]
            con.execute("UPDATE made_weeks SET made_from = ? WHERE week = ? AND asset = ?", [json.dumps(carried), *key])


def digest_of_rows(con: duckdb.DuckDBPyConnection, tables: Iterable[str], week: str) -> str:
    """The digest of the rows of `week` in `tables`, in whatever order."""
    found = [
        con.execute(
            f"SELECT count(*), sum(hash(t)::HUGEINT) FROM {table} AS t WHERE week = ?", [date.fromisoformat(week)]
        ).fetchall()
        for table in tables
    ]
    return digest_of(str(found).encode())


def digest_of_files(directory: Path) -> str:
    """The digest of the names and bytes of the files of `directory`."""
    digest = sha256()
    for path in sorted(directory.iterdir()):
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            file_digest(file, lambda: digest)
    return digest.hexdigest()[:16]


def digest_of(content: bytes) -> str:
    """The digest of these bytes, as the others here."""
    return sha256(content).hexdigest()[:16]


def location_digest(location: str) -> str:
    """What is recorded of the location of an export."""
    return digest_of(location.encode())
