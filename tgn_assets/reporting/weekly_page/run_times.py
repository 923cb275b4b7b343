"""How long the steps of a week took, from Dagster's event log."""

from dagster import DagsterInstance, RunsFilter

from tgn_assets.state.dagster_compat import PARTITION
from tgn_assets.state.lineage import REPORT

RUNS = 10
"""The newest runs of a week that are searched."""


def run_times(instance: DagsterInstance, week: str, report: str = REPORT) -> dict[str, float]:
    """Seconds of each step of `week` in its last success, the longest first; without `report`, which writes the page.

    With a prefix, as in `shop__weekly_report`, of the steps of that deployment alone.
    """
    prefix = report.removesuffix(REPORT)
    seconds: dict[str, float] = {}
    for record in instance.get_run_records(filters=RunsFilter(tags={PARTITION: week}), limit=RUNS):
        for step in instance.get_run_step_stats(record.dagster_run.run_id):
            if step.status is None or step.status.value != "SUCCESS" or step.step_key == report:
                continue
            if step.start_time and step.end_time and step.step_key.startswith(prefix):
                seconds.setdefault(step.step_key.removeprefix(prefix), step.end_time - step.start_time)
    return dict(sorted(seconds.items(), key=lambda item: (-item[1], item[0])))
