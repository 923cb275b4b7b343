"""A seeded world of users and events, any week of which can be written down by itself.

What is planted, for a model to find and a popularity list to miss:

- *communities*: an event belongs to one, and a user's interests are spread over a few;
- *drift*: interests move along a smooth path between mixtures drawn every `drift` weeks;
- *habits*: a user returns to a few events for months, to some of them only every 2 or 4 weeks;
- *launches*: an event is the talk of its community within weeks, fades, lives on in habits, and gives way to a new one.
  Users come and leave as well.

The world has no first week and carries no state. Users and events hold slots; the tenants of a slot follow each other
in lives of a fixed length and a random phase, so who is there is arithmetic on the week's number, and what they are
like is a hash of (seed, property, tenant). So a week costs the same whichever it is, and expects the same volume.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple, TextIO
from zlib import crc32

import duckdb
import numpy as np
import pandas as pd

from tgn_assets.ml.progress import LogFn, ProgressReporter
from tgn_assets.ml.sources.relations import Column, Opened, Part, Relation, SourceKind, row_filter
from tgn_assets.ml.sources.spec import SYNTHETIC, SourceExtent, last_ended_week
from tgn_assets.ml.weeks import FIRST_MONDAY, shift, week_number, week_of

APPEAL = 30.0
"""How many times more appealing an event can be than another of its community and age."""
RISE, FADE = 2.0, (1.5, 6.0)
"""Weeks until an event is widely known, and the range of weeks in which its appeal falls by a factor e."""
TAIL = 0.002
"""Share of its appeal that an event keeps until it ends."""
HOME = 0.3
"""Chance that a newly drawn mixture of interests centres on the user's home community again."""
CADENCES, CADENCE_SHARES, DUE_CHANCE = np.array([1, 2, 4]), np.array([0.7, 0.2, 0.1]), 0.9
WEEKLY_CHANCE = (0.2, 0.7)
"""Range of the chance that a weekly habit is followed; for one of another cadence it is DUE_CHANCE when it is due."""
ONCE = 0.7
"""Chance that a followed habit makes one interaction in the week only, else one more by the same chance, and so on."""
CSV_COLUMNS = {"user_id": "ip_address", "event_id": "event_id", "ts": "timestamp"}
"""The world's columns, and their default names in the settings."""
WEEKDAYS = np.array([0.16, 0.15, 0.15, 0.15, 0.16, 0.13, 0.10])

ID_BITS = 24
ADJECTIVES = (
    "amber ancient autumn azure bitter blue bold brave bright bronze calm clear clever cobalt cold copper coral cosy "
    "crimson dancing dawn deep distant dusty eager early ember emerald faint first floating foggy frosty gentle gilded "
    "golden grand green hidden hollow humble indigo iron ivory jade jolly keen late lively lone lucky lunar marble "
    "mellow merry misty modern mossy narrow noble northern olive open pale"
)
NOUNS = (
    "anchor anthem arcade archive atlas aurora ballad bazaar beacon bridge brook canyon carnival castle cedar circle "
    "cliff comet concert compass cove derby dome echo fair falcon ferry festival forum fountain gala galaxy garden "
    "grove harbour hill island jubilee kite lagoon lantern library lighthouse market meadow mill mirror museum orchard "
    "parade pavilion pier prairie quarry reef regatta relay ridge river salon summit theatre tower vale"
)


@dataclass(frozen=True)
class World:
    """The knobs. Lives are (shortest, longest) in weeks, log-uniform."""

    seed: int = 0
    users: int = 600
    """Users there in any week; a few of them touch nothing in it."""
    events: int = 400
    """Events there in any week."""
    communities: int = 12
    user_life: tuple[int, int] = (6, 160)
    event_life: tuple[int, int] = (16, 120)
    habit_life: tuple[int, int] = (8, 80)
    habits: int = 6
    """Most habits a user has at a time."""
    explorations: float = 5.0
    """Interactions a week that follow interest and what is popular there now, on average over users."""
    drift: int = 20
    """Weeks from one drawn mixture of interests to the next."""
    focus: float = 0.9
    """Share of a drawn mixture's main community; the rest goes to a second one."""
    background: float = 0.1
    """Share of interest spread over all communities alike."""


DEFAULT = World()
WEEKS = 26
"""How many weeks before the current one the source begins, unless its start is given."""
ROWS = "synthetic_rows"
COLUMNS = Column("user_id", "VARCHAR"), Column("event_id", "VARCHAR"), Column("ts", "TIMESTAMP")


class SyntheticSource(SourceKind):
    """The default world, which grows by a week every week."""

    reads_all = True

    def state(self, now: datetime) -> object:
        """The week."""
        return week_of(now)

    @contextmanager
    def open(
        self, con: duckdb.DuckDBPyConnection, weeks: Sequence[str] | None, _summarise: bool = False
    ) -> Iterator[Opened]:
        """The rows of `weeks` alone: of all weeks there is no end."""
        keep = row_filter(self.spec.row_filter, SYNTHETIC, {column.sql: column for column in COLUMNS})
        con.register(ROWS, self._rows(weeks or ()))
        try:
            yield Opened([Part(Relation(ROWS), (), *COLUMNS, False, *keep)])
        finally:
            con.unregister(ROWS)

    def extent(self) -> SourceExtent:
        """To the last week that is over."""
        closed = last_ended_week()
        first = self.spec.start_week or shift(closed, 1 - WEEKS)
        newest = self._rows([closed]).ts.max().to_pydatetime() if closed >= first else datetime.fromisoformat(first)
        return SourceExtent(first, closed if closed >= first else None, newest.replace(tzinfo=UTC))

    def is_empty(self) -> bool:
        """Never."""
        return False

    def _rows(self, weeks: Sequence[str]) -> pd.DataFrame:
        no_rows = pd.DataFrame({"user_id": "", "event_id": "", "ts": pd.Series(dtype="datetime64[us]")})
        frames = [generate_week(week) for week in weeks]
        return pd.concat(frames or [no_rows], ignore_index=True)


def generate_week(week: str, world: World = DEFAULT) -> pd.DataFrame:
    """The interactions of `week` (a Monday): user_id, event_id (text), ts (datetime64[us], UTC), in order of ts.

    The same rows whenever and in whichever order it is asked; ValueError for a key that is no Monday.
    """
    state = WeekState(world, week_number(week))
    rng = np.random.Generator(np.random.Philox(key=int(_hash(world.seed, "chance", state.number)[0])))
    habitual, habit = np.nonzero(rng.random(state.habit_chance.shape) < state.habit_chance)
    times = rng.geometric(ONCE, len(habitual))
    curious = np.repeat(np.arange(world.users), rng.poisson(state.rate))
    interests = Interests(*(part[curious] for part in state.interests))
    community = _draw_community(interests, world, rng.random(len(curious)), rng.random(len(curious)))
    user = np.concatenate([np.repeat(habitual, times), curious])
    drawn = state.catalogue.draw(community, rng.random(len(curious)))
    event = np.concatenate([np.repeat(state.habit_event[habitual, habit], times), drawn])
    weekday = rng.choice(7, len(user), p=WEEKDAYS)
    hour = 12 * (rng.random(len(user)) + rng.random(len(user)))  # in [0, 24), most often around midday
    microsecond = (weekday * 24 + hour) * 3_600_000_000
    monday = np.datetime64(FIRST_MONDAY, "us") + np.timedelta64(7 * state.number, "D")
    order = np.argsort(microsecond, kind="stable")
    users, events = state.user_ids()[user[order]], state.event_ids()[event[order]]
    ts = monday + microsecond[order].astype("timedelta64[us]")
    return pd.DataFrame({"user_id": users, "event_id": events, "ts": ts})


class Interests(NamedTuple):
    """Communities a user is drawn to [..., 4] and by how much [..., 4]; the shares sum to 1 - World.background."""

    community: np.ndarray
    share: np.ndarray


class WeekState:
    """What is settled about a week before its luck: who is there, their interests and habits, what is popular."""

    def __init__(self, world: World, number: int) -> None:
        self.world, self.number = world, number
        self.catalogue = _Catalogue(world, number)
        slot = np.arange(world.users)
        self.tenant, _ = _tenancy(world, "user", slot, number, world.user_life)
        self.who = _hash(world.seed, "user", slot, self.tenant)
        u, v = _uniform("rate", self.who), _uniform("rate too", self.who)
        self.rate = world.explorations * -np.log((1 - u) * (1 - v)) / 2  # [users] Erlang-2 around the mean
        self.interests = interests_of(world, self.who, number)
        self.habits = np.minimum(np.floor(world.habits * _uniform("loyalty", self.who)) + 1, world.habits)
        self.habit_event, self.habit_chance = self._habits()

    def _habits(self) -> tuple[np.ndarray, np.ndarray]:
        """Event slot and chance of each habit, both [users, habits]; chance 0 where there is none or it is not due.

        A habit begins with what interest and popularity suggest in its first week, and ends no later than its event.
        """
        world, nth = self.world, np.arange(self.world.habits)
        who = self.who[:, None]
        slot = _hash("habit", who, nth)
        tenant, age = _tenancy(world, "habit", slot, self.number, world.habit_life)
        habit, start = _hash("habit", slot, tenant), self.number - age
        interests = interests_of(world, who, start)
        community = _draw_community(interests, world, _uniform("community", habit), _uniform("any community", habit))
        event, alive = np.zeros_like(age), np.zeros(age.shape, bool)
        for week in np.unique(start):
            then, here = _Catalogue(world, int(week)), start == week
            event[here] = then.draw(community[here], _uniform("event", habit[here]))
            alive[here] = then.tenant[event[here]] == self.catalogue.tenant[event[here]]
        low, high = WEEKLY_CHANCE
        cadence = CADENCES[np.searchsorted(CADENCE_SHARES.cumsum()[:-1], _uniform("cadence", habit), side="right")]
        weekly = low + (high - low) * _uniform("chance", habit)
        chance = np.where(cadence == 1, weekly, DUE_CHANCE * (age % cadence == 0))
        return event, chance * alive * (nth < self.habits[:, None])

    def user_ids(self) -> np.ndarray:
        """[users] text such as 10.47.201.9."""
        number, octet = _scrambled_ids(self.world, "user", self.tenant), np.array([str(i) for i in range(256)], object)
        return "10." + octet[number >> 16] + "." + octet[number >> 8 & 255] + "." + octet[number & 255]

    def event_ids(self) -> np.ndarray:
        """[events] text such as misty-harbour-0417."""
        number, digits = _scrambled_ids(self.world, "event", self.catalogue.tenant), [f"-{i:04d}" for i in range(4096)]
        adjective, noun = np.array(ADJECTIVES.split(), object), np.array(NOUNS.split(), object)
        return adjective[number >> 18] + "-" + noun[number >> 12 & 63] + np.array(digits, object)[number & 4095]


class _Catalogue:
    """The events of one week: the tenant of each slot [events], its community, its share of the interest in that."""

    def __init__(self, world: World, week: int) -> None:
        slot = np.arange(world.events)
        self.tenant, age = _tenancy(world, "event", slot, week, world.event_life)
        fade = FADE[0] * (FADE[1] / FADE[0]) ** _uniform(world.seed, "fade", slot, self.tenant)
        course = (1 - np.exp(-(((age + 0.5) / RISE) ** 2))) * np.maximum(np.exp(-age / fade), TAIL)
        weight = APPEAL ** _uniform(world.seed, "appeal", slot, self.tenant) * course
        self.community = slot % world.communities
        self.share = weight / np.bincount(self.community, weight)[self.community]
        self._order = np.argsort(self.community, kind="stable")
        self._edges = np.cumsum(self.share[self._order])  # community c owns the stretch from c to c + 1

    def draw(self, community: np.ndarray, u: np.ndarray) -> np.ndarray:
        """An event slot of each community, chosen by share with `u` uniform in [0, 1)."""
        place = np.searchsorted(self._edges, community + u, side="right")
        return self._order[np.minimum(place, len(self._order) - 1)]


def interests_of(world: World, who: np.ndarray, week: int | np.ndarray) -> Interests:
    """What the users `who` (`WeekState.who`) are drawn to in the week of that number."""
    clock = week + np.floor(world.drift * _uniform("clock", who)).astype(np.int64)
    knot, step = np.divmod(clock, world.drift)
    travelled = step / world.drift
    arrived = travelled**2 * (3 - 2 * travelled)
    home = _community(world, "home", who)
    communities, shares = [], []
    for at, part in ((knot, 1 - arrived), (knot + 1, arrived)):
        main = np.where(_uniform("stay", who, at) < HOME, home, _community(world, "main", who, at))
        communities += [main, _community(world, "second", who, at)]
        shares += [part * world.focus * (1 - world.background), part * (1 - world.focus) * (1 - world.background)]
    return Interests(np.stack(communities, -1), np.stack(shares, -1))


def _community(world: World, *what: str | int | np.ndarray) -> np.ndarray:
    return np.floor(world.communities * _uniform(*what)).astype(np.int64)


def _draw_community(interests: Interests, world: World, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """A community by share with `u`, or in what the shares leave over any of them with `v`; both uniform in [0, 1)."""
    choice = (u[..., None] >= interests.share.cumsum(-1)).sum(-1)
    own = np.take_along_axis(interests.community, np.minimum(choice, 3)[..., None], -1)[..., 0]
    return np.where(choice < 4, own, np.floor(world.communities * v).astype(np.int64))


def _tenancy(world: World, what: str, slot: np.ndarray, week: int, life: tuple[int, int]) -> list[np.ndarray]:
    """Each slot's tenant in `week` (a number that grows with time), and the weeks since it came."""
    shortest, longest = life
    stay = np.floor(shortest * (longest / shortest) ** _uniform(world.seed, what, "life", slot)).astype(np.int64)
    phase = np.floor(stay * _uniform(world.seed, what, "phase", slot)).astype(np.int64)
    return [(week + phase) // stay, (week + phase) % stay]


def _scrambled_ids(world: World, what: str, tenant: np.ndarray) -> np.ndarray:
    """A number of ID_BITS bits for the tenant of each slot, different for all who are there at a time.

    It says nothing about slot or age. A slot has (1 << ID_BITS) // slots of them, then it starts over: after more than
    27,000 tenants in the default world, after 16 (two years at least) among a million users.
    """
    mask, slots = (1 << ID_BITS) - 1, len(tenant)
    number = tenant % ((1 << ID_BITS) // slots) * slots + np.arange(slots)
    for key in _hash(world.seed, what, "ids", np.arange(3)).astype(np.int64) & mask:
        number = (number ^ key) * 0x9E3779 & mask  # odd, so that multiplying permutes
        number ^= number >> (ID_BITS // 2)
    return number


def _uniform(*parts: str | int | np.ndarray) -> np.ndarray:
    """`_hash` as numbers in [0, 1)."""
    return (_hash(*parts) >> np.uint64(11)) * 2.0**-53


def _hash(*parts: str | int | np.ndarray) -> np.ndarray:
    """A random-looking 64-bit word for each element of the broadcast `parts`; a string says what is drawn.

    Folds the parts through the splitmix64 step (Steele, Lea and Flood, OOPSLA 2014).
    """
    state = np.zeros(1, np.uint64)
    for part in parts:
        word = np.asarray(crc32(part.encode()) if isinstance(part, str) else part).astype(np.uint64)
        state = (state ^ word) + np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(31)
    return state


def write_csv(out: TextIO, start_week: str, weeks: int, world: World, log: LogFn) -> None:
    """Writes `weeks` weeks from `start_week` on to `out`; tells `log` every few seconds how far it is."""
    progress = ProgressReporter(log, "generate", weeks, "week")
    for done in range(weeks):
        rows = generate_week(shift(start_week, done), world).rename(columns=CSV_COLUMNS)
        rows.to_csv(out, columns=list(CSV_COLUMNS.values()), header=done == 0, index=False, lineterminator="\n")
        progress.add(1)
    out.flush()
