"""Which closed weeks still have something to do, oldest first: what the schedule, the sensor and `tgn` act on."""

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from hashlib import sha256

INGEST, REFRESH = "ingest", "refresh"
MISSING, CHANGED = "missing", "changed"


@dataclass(frozen=True)
class WorkItem:
    """One thing to do: refresh one week, or ingest the weeks from `first` to `last` in one go."""

    action: str
    first: str
    last: str
    reason: str
    digest: str
    """Of the source rows it is about: a request that failed is worth another try only when they have changed."""

    @property
    def key(self) -> str:
        return f"{self.action} {self.weeks} {sha256(self.digest.encode()).hexdigest()[:12]}"

    @property
    def weeks(self) -> str:
        return self.first if self.first == self.last else f"{self.first}..{self.last}"


def pending(
    weeks: Sequence[str], published: Set[str], ingested: Mapping[str, str], source: Mapping[str, str]
) -> list[WorkItem]:
    """What is missing or changed among the closed `weeks` (ascending), in the order in which it must be done.

    `published` are the weeks that have predictions, `ingested` maps a week to the digest of its rows in the warehouse,
    `source` to that of its rows in the source (weeks left out have not changed).

    Weeks before the first published one are history to learn from: they are ingested, all in one go, and no
    predictions are made for them afterwards. If nothing was ever published, the newest closed week is the first.
    Every week from there on is refreshed, one by one, as each starts from the model of the week before.
    """
    if not weeks:
        return []
    first = min(published & set(weeks), default=weeks[-1])
    moved = {week for week in weeks if week not in ingested or source.get(week, ingested[week]) != ingested[week]}
    return [
        *_ingest([week for week in weeks if week < first and week in moved], ingested, source),
        *(
            WorkItem(
                REFRESH, week, week, CHANGED if week in published else MISSING, source.get(week, ingested.get(week, ""))
            )
            for week in weeks
            if week >= first and (week not in published or week in moved)
        ),
    ]


def _ingest(weeks: list[str], ingested: Mapping[str, str], source: Mapping[str, str]) -> Iterator[WorkItem]:
    """At most one range that covers `weeks`: a source is read once however many weeks are asked of it."""
    if weeks:
        reason = CHANGED if any(week in ingested for week in weeks) else MISSING
        yield WorkItem(INGEST, weeks[0], weeks[-1], reason, " ".join(source.get(week, "") for week in weeks))
