"""How long the steps of a week took, from Dagster's history."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dagster import DagsterInstance

PARTITION, REPORT = "dagster/partition", "weekly_report"
RUNS = 10
"""Runs of a week that are looked through."""


def run_times(instance: "DagsterInstance", week: str) -> dict[str, float]:
    """Seconds that each step of `week` took when it last succeeded, the longest first; the report itself is left out,
    which is not done while it is written."""
    from dagster import RunsFilter

    seconds: dict[str, float] = {}
    for record in instance.get_run_records(filters=RunsFilter(tags={PARTITION: week}), limit=RUNS):
        for step in instance.get_run_step_stats(record.dagster_run.run_id):
            if step.status is None or step.status.value != "SUCCESS" or step.step_key == REPORT:
                continue
            if step.start_time and step.end_time:
                seconds.setdefault(step.step_key, step.end_time - step.start_time)
    return dict(sorted(seconds.items(), key=lambda item: (-item[1], item[0])))


def duration(seconds: float) -> str:
    """`seconds` as a person says it: 0.4 s, 12 s, 2 min 5 s."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
