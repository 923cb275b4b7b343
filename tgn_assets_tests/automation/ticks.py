"""Ticks of the sensor, for tests."""

import dagster as dg

from tgn_assets.automation.runs import OBSERVE_JOB
from tgn_assets.automation.sensors import missing_or_changed_weeks_sensor
from tgn_assets.state.home import Home
from tgn_assets_tests.support.event_logs import JOBS, WEEKS, observe, publish


class Ticks:
    """Ticks of the sensor of `home`; an observation that one requests is made, and then there is another tick."""

    def __init__(self, home: Home, instance: dg.DagsterInstance) -> None:
        self._sensor = missing_or_changed_weeks_sensor(home, JOBS)
        self._home, self._instance = home, instance

    def once(self) -> dg.SensorResult | dg.SkipReason:
        """A single tick."""
        answer = self._sensor(dg.build_sensor_context(self._instance))
        assert isinstance(answer, dg.SensorResult | dg.SkipReason)
        return answer

    def __call__(self) -> dg.SensorResult | dg.SkipReason:
        answer = self.once()
        if observes(answer):
            observe(self._home)
            answer = self.once()
        return answer

    def request(self) -> dg.RunRequest:
        answer = self()
        assert isinstance(answer, dg.SensorResult) and answer.run_requests, answer
        [request] = answer.run_requests
        return request

    def reason(self) -> str:
        answer = self()
        skip = answer.skip_reason if isinstance(answer, dg.SensorResult) else answer
        assert isinstance(skip, dg.SkipReason) and skip.skip_message, answer
        return skip.skip_message


def complete(home: Home, tick: Ticks) -> None:
    """Publishes every week, and lets the sensor see it."""
    publish(home, *WEEKS)
    assert "complete" in tick.reason()


def observes(answer: dg.SensorResult | dg.SkipReason) -> bool:
    """Whether the tick requests an observation of the source, and nothing else."""
    requests = (answer.run_requests or []) if isinstance(answer, dg.SensorResult) else []
    return [request.job_name for request in requests] == [OBSERVE_JOB]
