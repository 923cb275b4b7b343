"""A real `tgn dev` on a small log: the sensor ingests, weeks are run by a backfill and by clicks."""

import re
from collections.abc import Iterator

import duckdb
import pytest
from playwright.sync_api import Page, expect

from benchmarks.dev_server import LOCATION, Server, ended
from benchmarks.servers import wait_for
from tgn_assets_tests.e2e.dagster_server import WEEKS, dagster_dev
from tgn_assets_tests.support.browser import SIZE, TAKES_PICTURES, around, screenshot

pytestmark = pytest.mark.e2e

WEEK = "dagster/partition"
VERTICAL_GRAPH = """localStorage.setItem("asset-graph-direction", '"vertical"');
localStorage.setItem("asset-node-facets", '["status", "partitions"]')"""
"""Settings of the UI: assets from top to bottom, with two lines each."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with dagster_dev(tmp_path_factory.mktemp("dev")) as server:
        yield server


@pytest.fixture(scope="module")
def backfill(server: Server) -> str:
    """The id of a backfill of all weeks but the first, launched once the sensor has requested the past.

    The daemon looks for backfills every 30 s: the clicks go on meanwhile.
    """
    # The sensor is on unless someone has turned it off: on a new home, it observes the source first.
    wait_for("the sensor", lambda: server.runs("dagster/asset_partition_range_start", WEEKS[0]))
    return server.launch_backfill(WEEKS[1:])


def test_a_week_is_materialized_by_clicks(server: Server, backfill: str, page: Page) -> None:
    page.set_default_timeout(30_000)
    expect.set_options(timeout=30_000)

    _open_graph(server, page)
    page.set_viewport_size(SIZE)

    page.goto(f"{server.url}/locations/tgn_assets/jobs/weekly_refresh")
    page.get_by_role("button", name="Materialize all").click()
    page.get_by_placeholder("ex: ").fill(WEEKS[1])
    page.keyboard.press("Enter")
    screenshot(page, "week", around(page.get_by_role("dialog"), 20))
    page.get_by_role("button", name="Launch 1 run").click()
    page.get_by_text("View", exact=True).click()
    expect(page).to_have_url(re.compile("/runs/[0-9a-f-]{36}"))
    run = page.url
    page.goto("about:blank")  # drawing the log of a run that works costs more than the run
    wait_for("the week", lambda: ended([one for one in server.runs(WEEK, WEEKS[1]) if run.endswith(one["runId"])], 1))
    page.goto(run)
    expect(page.get_by_text("Success", exact=True).first).to_be_visible()

    _open_catalogue(server, page, WEEKS[1])
    row = page.locator("tr").filter(has=page.get_by_text("preview", exact=True))
    for name in ("event_id", "reason"):
        expect(row.locator("th").get_by_text(name, exact=True)).to_be_in_viewport()

    page.goto(f"{server.url}/automation")
    schedule = page.locator("[data-index]").filter(has_text="weekly_refresh_schedule")
    switch = schedule.locator("label[class*=Switch]")
    expect(switch.locator("input")).to_be_checked()
    switch.click()
    expect(switch.locator("input")).not_to_be_checked()
    wait_for("turning the schedule off", lambda: _schedule(server) == "STOPPED")
    switch.click()
    expect(switch.locator("input")).to_be_checked()
    wait_for("turning the schedule on", lambda: _schedule(server) == "RUNNING")


def test_clicks_on_the_page_of_the_asset_open_the_reports(server: Server, backfill: str, page: Page) -> None:
    page.set_default_timeout(30_000)
    page.goto(f"{server.url}/assets/weekly_report?view=partitions&partition={WEEKS[1]}")
    with page.context.expect_page() as opened:
        page.locator("tr").filter(has=page.get_by_text("page", exact=True)).get_by_role("link").first.click()
    expect(opened.value.get_by_role("heading", name=f"Week of {WEEKS[1]}", exact=True)).to_be_visible()
    page.goto(f"{server.url}/assets/weekly_report")
    with page.context.expect_page() as opened:
        page.locator("tr").filter(has=page.get_by_text("weekly_pages", exact=True)).get_by_role("link").first.click()
    opened.value.get_by_role("link", name=WEEKS[1], exact=True).click()
    expect(opened.value.get_by_role("heading", name=f"Week of {WEEKS[1]}", exact=True)).to_be_visible()


def test_the_sensor_ingests_and_a_backfill_refreshes(server: Server, backfill: str, page: Page) -> None:
    runs = server.runs_of_backfill(backfill, 2)
    assert [run["status"] for run in runs] == ["SUCCESS", "SUCCESS"]
    assert [run["tags"][WEEK] for run in runs] == WEEKS[1:]
    assert runs[0]["endTime"] <= runs[1]["startTime"]
    with duckdb.connect(server.home / "warehouse.duckdb", read_only=True) as con:
        published = con.execute("SELECT DISTINCT week::VARCHAR FROM weekly_top5_predictions ORDER BY 1").fetchall()
    assert published == [(week,) for week in WEEKS[1:]]

    observation, past = server.runs("dagster/sensor_name", "missing_or_changed_weeks")
    assert (observation["jobName"], past["jobName"]) == ("observe_source", "weekly_refresh")
    assert (observation["status"], past["status"]) == ("SUCCESS", "SUCCESS")
    assert past["tags"]["dagster/asset_partition_range_start"] == WEEKS[0]
    assert past["tags"]["dagster/asset_partition_range_end"] == WEEKS[1]

    if TAKES_PICTURES:
        _open_catalogue(server, page, WEEKS[2])
        screenshot(page, "predictions", around(page.get_by_role("dialog"), 20))
        _open_graph(server, page)
        screenshot(page, "graph", around(page.locator("[class*=assetName]"), 70))


def _open_graph(server: Server, page: Page) -> None:
    """Shows all assets, in a way that their names can be read in a picture of 830 pixels."""
    page.add_init_script(VERTICAL_GRAPH)
    page.set_viewport_size({"width": 1260, "height": 1500})
    page.goto(f"{server.url}/asset-groups")
    for group in ("ingest", "model", "recommendations"):
        page.locator("[data-tooltip]").get_by_text(group, exact=True).click()
        page.wait_for_url(re.compile(f"expanded=.*{group}"))
    page.get_by_text("Hide navigation").click()
    page.reload()  # brings the whole graph into view
    for asset in ("raw_interactions", "trained_gnn", "eval_metrics"):
        expect(page.locator("[class*=assetName]").get_by_text(asset, exact=True)).to_be_visible()


def _open_catalogue(server: Server, page: Page, week: str) -> None:
    """Shows the plot of what the lists of `week` recommend."""
    page.goto(f"{server.url}/assets/weekly_top5_predictions?view=partitions&partition={week}")
    row = page.locator("tr").filter(has=page.get_by_text("catalogue", exact=True))
    row.get_by_text("[Show Markdown]").click()
    plot = page.get_by_alt_text("most recommended events, and catalogue coverage by week")
    expect(plot).to_be_visible()
    assert plot.evaluate("image => image.naturalWidth") > 500


def _schedule(server: Server) -> str:
    found = server.ask(
        """query ($selector: ScheduleSelector!) { scheduleOrError(scheduleSelector: $selector) {
             ... on Schedule { scheduleState { status } } } }""",
        selector=LOCATION | {"scheduleName": "weekly_refresh_schedule"},
    )
    return found["scheduleOrError"]["scheduleState"]["status"]
