"""Plans what has to be done for the closed weeks, for the schedule, the sensor and `tgn status`."""

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from hashlib import sha256

INGEST, REFRESH = "ingest", "refresh"
MISSING, CHANGED = "missing", "changed"


@dataclass(frozen=True)
class WorkItem:
    """Refresh one week, or ingest the weeks from `first` to `last` in one run."""

    action: str
    first: str
    last: str
    reason: str
    digest: str
    """Of the weeks' rows in the source. After a failure, the item is requested again only when they have changed."""

    @property
    def key(self) -> str:
        """Names the item, and changes with the rows."""
        return f"{self.action} {self.weeks} {sha256(self.digest.encode()).hexdigest()[:12]}"

    @property
    def weeks(self) -> str:
        """The week, or the first and the last one."""
        return self.first if self.first == self.last else f"{self.first}..{self.last}"


def plan_work(
    weeks: Sequence[str], published: Set[str], ingested: Mapping[str, str], source: Mapping[str, str]
) -> list[WorkItem]:
    """What is missing or changed among the closed `weeks` (ascending), in the order in which it must be done.

    `published` are the weeks that have predictions. `ingested` maps a week to the digest of its rows in the warehouse,
    `source` to the digest of its rows in the source, where that has changed.

    Weeks before the first published one are there to learn from: they are ingested in one run, and get no
    predictions. If nothing was published yet, the newest closed week is the first. Every week from there on is
    refreshed, one by one, as each starts from the model of the week before.
    """
    if not weeks:
        return []
    first = min(published & set(weeks), default=weeks[-1])
    changed = {week for week in weeks if week not in ingested or source.get(week, ingested[week]) != ingested[week]}
    return [
        *_ingest([week for week in weeks if week < first and week in changed], ingested, source),
        *(
            WorkItem(
                REFRESH, week, week, CHANGED if week in published else MISSING, source.get(week, ingested.get(week, ""))
            )
            for week in weeks
            if week >= first and (week not in published or week in changed)
        ),
    ]


def _ingest(weeks: list[str], ingested: Mapping[str, str], source: Mapping[str, str]) -> Iterator[WorkItem]:
    """At most one range that covers `weeks`: the source is read once, however many weeks are ingested."""
    if weeks:
        reason = CHANGED if any(week in ingested for week in weeks) else MISSING
        yield WorkItem(INGEST, weeks[0], weeks[-1], reason, " ".join(source.get(week, "") for week in weeks))
