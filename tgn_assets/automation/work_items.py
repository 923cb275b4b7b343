"""Plans what has to be done for the closed weeks, for the schedule, the sensor, `tgn status` and `tgn refresh`."""

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from hashlib import sha256

from tgn_assets.ml.sources.spec import expired_weeks
from tgn_assets.ml.weeks import shift
from tgn_assets.state.lineage import HISTORY, PREDICTIONS, SNAPSHOTS, UPSTREAM, Lineage

INGEST, REFRESH = "ingest", "refresh"
MISSING, CHANGED, STALE = "missing", "changed", "stale"
OF_A_WEEK = frozenset(UPSTREAM)
"""The assets of a week, without the exports of a deployment."""


@dataclass(frozen=True)
class WorkItem:
    """Refresh one week or some assets of it, or ingest the weeks from `first` to `last` in one run."""

    action: str
    first: str
    last: str
    reason: str
    digest: str
    """Of what it would be made from that no run of its weeks makes. After a failure, which may have made a part of it,
    the item is requested again only when that has changed."""
    assets: tuple[str, ...] = ()
    """The assets that are stale; empty: all of the week."""
    made_from: str = ""
    """What the stale assets would be made from."""

    @property
    def cause(self) -> str:
        """Names what the item is to be made from, whatever a run that failed has made of it."""
        return f"{self.action} {self.weeks} {_hash(self.digest)}"

    @property
    def key(self) -> str:
        """Names the item, and changes with what it would be made from."""
        return f"{self.cause} {_hash(self.made_from)}"

    @property
    def weeks(self) -> str:
        """The week, or the first and the last one."""
        return self.first if self.first == self.last else f"{self.first}..{self.last}"


def _hash(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:12]


def plan_work(
    weeks: Sequence[str],
    lineage: Lineage,
    source: Mapping[str, str],
    *,
    assets: Set[str] = OF_A_WEEK,
    trained: Set[str] = frozenset(),
    last_week: str | None = None,
    outdated: Set[str] = frozenset(),
    also_read: Callable[[], str] = str,
) -> list[WorkItem]:
    """What does not match what it should be made from, in the closed `weeks` (ascending) up to `last_week`.

    Items come in the order in which they must be done. `source` maps a week to the digest of its rows in the source;
    those of a week without one are as `lineage` has ingested them. `assets` are those that a refreshed week has.
    `trained` are the weeks that have a model: they had lists, even if the warehouse is gone. Snapshots of `outdated`
    weeks cannot be read: they are made anew before anything that may learn from them. `also_read()` changes with
    what a week reads and no lineage records: no reason to make one again, but to try again one that failed.

    What the source no longer has at its beginning (`expired_weeks`) stays as it was ingested, and if it ends before
    the newest week that was published, nothing is made: the export is hardly whole.

    Weeks before the first published one are there to learn from: they are ingested in one run, and get no
    predictions. If nothing was published yet, the newest closed week is the first. Every week from there on is
    refreshed, one by one, as each starts from the model of the week before.
    """
    asked = [week for week in weeks if last_week is None or week <= last_week]
    if not asked:
        return []
    published = lineage.published | trained
    if published and max(published) > weeks[-1]:
        return []
    first = min(published & set(weeks), default=weeks[-1])
    ingested = lineage.ingested
    changed = {week for week in asked if week not in ingested or source.get(week, ingested[week]) != ingested[week]}
    changed -= expired_weeks(ingested, weeks[0], min(source, default=None))
    past = [
        week
        for week in asked
        if week in outdated or (week < first and (week in changed or lineage.stale(week, {SNAPSHOTS}, newest=False)))
    ]
    refreshes = (
        _refresh(week, lineage, source, assets, newest=week == weeks[-1], changed=week in changed)
        for week in asked
        if week >= first
    )
    items = list(filter(None, refreshes))
    read = also_read() if items else ""
    return [*_ingest(past, lineage, source), *(replace(item, digest=item.digest + read) for item in items)]


def _ingest(weeks: list[str], lineage: Lineage, source: Mapping[str, str]) -> Iterator[WorkItem]:
    """At most one range that covers `weeks`: the source is read once, however many weeks are ingested."""
    if weeks:
        known = [week for week in weeks if week in lineage.ingested]
        same = all(source.get(week, lineage.ingested.get(week)) == lineage.ingested.get(week) for week in weeks)
        reason = (STALE if same else CHANGED) if known else MISSING
        yield WorkItem(INGEST, weeks[0], weeks[-1], reason, " ".join(source.get(week, "") for week in weeks))


def _refresh(
    week: str, lineage: Lineage, source: Mapping[str, str], assets: Set[str], *, newest: bool, changed: bool
) -> WorkItem | None:
    before = shift(week, -1)
    of_others = [
        source.get(week) or lineage.ingested.get(week, ""),
        lineage.digest(HISTORY, before) if newest else None,
        lineage.digest(PREDICTIONS, before),
        *(lineage.settings(asset, week) for asset in sorted(assets)),
    ]
    if changed or week not in lineage.published:
        return WorkItem(REFRESH, week, week, CHANGED if week in lineage.published else MISSING, str(of_others))
    if stale := lineage.stale(week, assets, newest=newest):
        now = {asset: lineage.upstream(asset, week) for asset in stale}
        return WorkItem(REFRESH, week, week, STALE, str(of_others), tuple(stale), str(now))
    return None
