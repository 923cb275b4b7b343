"""What a week costs and what its lists are worth, by log and method: what measure_costs found, kept in costs.json."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

RESULTS = Path(__file__).with_name("costs.json")


@dataclass(frozen=True)
class Cost:
    """What one method's lists of a log were worth, and their seconds a week."""

    ndcg: float
    users: int
    """How many values the mean has: each user counts once for every week of activity."""
    seconds: float
    lambdarank_seconds: float
    """LambdaRank's, in the same run."""
    stopped: bool
    """Whether the clock ended training: more seconds might have gained more."""
    measured: str
    """The day."""
    machine: str

    @property
    def ratio(self) -> float:
        """Seconds against LambdaRank's."""
        return self.seconds / self.lambdarank_seconds


Costs = Mapping[str, Mapping[str, Cost]]
"""By log and method."""


def read_costs(path: Path = RESULTS) -> dict[str, dict[str, Cost]]:
    """The results in a file of `write_costs`."""
    logs = json.loads(path.read_text(encoding="utf-8"))
    return {log: {method: Cost(**values) for method, values in costs.items()} for log, costs in logs.items()}


def merged(known: Costs, log: str, measured: Mapping[str, Cost]) -> Costs:
    """`known` with what was `measured` of one log; its other methods stay."""
    return {**known, log: {**known.get(log, {}), **measured}}


def write_costs(costs: Costs, path: Path = RESULTS) -> None:
    """Writes the results as JSON, one line for each log and method."""
    logs = []
    for log in costs:
        lines = (f"  {json.dumps(method)}: {json.dumps(asdict(cost))}" for method, cost in costs[log].items())
        logs.append(f" {json.dumps(log)}: {{\n" + ",\n".join(lines) + "\n }")
    path.write_text("{\n" + ",\n".join(logs) + "\n}\n", encoding="utf-8")
