"""Ids that were forgotten: no row of theirs is taken from a source. Their list holds keyed hashes, and no id in clear.

The key is random, of one home, and lies beside the hashes: two homes share no hash, and who has only a hash learns
nothing. Who has the whole file can try ids, as they could with any list that an ingest can look ids up in.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tgn_assets.ml.safe_text import SafeError, of_the_system
from tgn_assets.ml.schema import EVENT, USER, literal

if TYPE_CHECKING:
    import duckdb

KINDS = (USER, EVENT)
TABLE = "forgotten_hashes"


class ForgottenListError(SafeError, ValueError):
    """The list of forgotten ids cannot be read: then nothing may be, or who was forgotten would come back."""


@dataclass(frozen=True)
class ForgottenIds:
    """The hashes of forgotten users and events, by kind; `unfinished` are those that may have left traces."""

    key: str
    hashes: Mapping[str, frozenset[str]] = field(default_factory=dict)
    unfinished: frozenset[str] = frozenset()

    @classmethod
    def load(cls, path: Path | None) -> ForgottenIds:
        """The list in the file `path`; an empty one, with a new key, if there is no file. ForgottenListError
        if it is damaged, or may not be read.
        """
        try:
            if path is None or not path.exists():
                return cls(secrets.token_hex(32))
            stored: dict[str, Any] = json.loads(path.read_text("utf-8"))
            hashes = {kind: frozenset(stored[f"{kind}s"]) for kind in KINDS}
            return cls(str(stored["key"]), hashes, frozenset(stored["unfinished"]))
        except PermissionError as error:
            raise ForgottenListError(of_the_system(error)) from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ForgottenListError(
                f"{path}, the list of forgotten ids, cannot be read ({type(error).__name__}): put a backup in its "
                "place; without it, forgotten users would come back"
            ) from error

    def to_json(self) -> str:
        """What `load` reads."""
        stored = {f"{kind}s": sorted(self.hashes.get(kind, ())) for kind in KINDS}
        return json.dumps({"key": self.key, **stored, "unfinished": sorted(self.unfinished)}, indent=1) + "\n"

    def hash(self, kind: str, name: str) -> str:
        """The hash of the id `name` of the `kind` user or event."""
        return sha256(f"{self.key}{kind}:{name}".encode()).hexdigest()

    def holds(self, kind: str, name: str) -> bool:
        """Whether the id was forgotten."""
        return bool(self.hashes.get(kind)) and self.hash(kind, name) in self.hashes[kind]

    def adding(self, kind: str, names: Iterable[str]) -> ForgottenIds:
        """The list with the ids `names` added, which may have left traces."""
        new = {self.hash(kind, name) for name in names}
        hashes = {**self.hashes, kind: self.hashes.get(kind, frozenset()) | new}
        return replace(self, hashes=hashes, unfinished=self.unfinished | new)

    def finishing(self, kind: str, names: Iterable[str]) -> ForgottenIds:
        """The list once the ids `names` have left no trace."""
        return replace(self, unfinished=self.unfinished - {self.hash(kind, name) for name in names})

    def __bool__(self) -> bool:
        return any(self.hashes.values())

    @property
    def state(self) -> str:
        """Moves with the list; empty for an empty one."""
        if not self:
            return ""
        parts = [self.key, *(" ".join(sorted(self.hashes.get(kind, ()))) for kind in KINDS), *sorted(self.unfinished)]
        return sha256("\n".join(parts).encode()).hexdigest()

    def write_table(self, con: duckdb.DuckDBPyConnection) -> None:
        """Writes the hashes to the temporary table that `sql` looks them up in."""
        hashes = [one for of_kind in self.hashes.values() for one in of_kind]
        con.execute(f"CREATE OR REPLACE TEMP TABLE {TABLE} AS SELECT unnest(?::VARCHAR[]) AS hash", [hashes])

    def sql(self, column: str, *kinds: str) -> str:
        """SQL, after `write_table`: whether the text `column` is a forgotten id of one of `kinds` (none: of any)."""
        conditions = [
            f"sha256({literal(f'{self.key}{kind}:')} || {column}) IN (SELECT hash FROM {TABLE})"
            for kind in kinds or KINDS
            if self.hashes.get(kind)
        ]
        return f"coalesce({' OR '.join(conditions)}, false)" if conditions else "false"
