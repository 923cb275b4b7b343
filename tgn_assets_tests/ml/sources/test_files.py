"""What is remembered of files: a look and a load read no more than they must, and find what reading all finds."""

import gzip
import hashlib
import os
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tgn_assets.ml.data.ingest_report import IngestReport
from tgn_assets.ml.sources import files as files_module
from tgn_assets.ml.sources.extent import describe_source, first_week_of, source_signature, survey_source
from tgn_assets.ml.sources.formats import open_file
from tgn_assets.ml.sources.spec import SourceError, SourceSpec
from tgn_assets_tests.support.histories import HEADER, ROWS, WEEKS, csv, load, parquet, rows, warehouse

TABLES = ("raw_interactions", "rejected_interactions", "ingested_weeks", "rows_outside_weeks")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of files that were read, which count as settled as soon as they are written."""
    names = list[str]()

    def watched(con: object, spec: SourceSpec, name: str, *rest: object) -> object:
        names.append(Path(name).name)
        return open_file(con, spec, name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(files_module, "open_file", watched)
    monkeypatch.setattr(files_module, "SETTLED_NS", 0)
    return names


@pytest.fixture
def spec(tmp_path: Path) -> SourceSpec:
    """A folder with a file a week, where the second file begins with a late row of the first week."""
    log = tmp_path / "log"
    csv(log, HEADER + "u1,e1,2024-01-03\nu2,e2,2024-01-04\n", "dt=2024-01-01/a.csv")
    csv(log, HEADER + "u3,e1,2024-01-05\nu1,e2,2024-01-09\n", "dt=2024-01-08/b.csv")
    csv(log, HEADER + "u1,e2,2024-01-16\n,e2,2024-01-17\n", "dt=2024-01-15/c.csv")
    return SourceSpec(str(log), summaries=tmp_path / "source_files.json")


def unaided(spec: SourceSpec) -> SourceSpec:
    return replace(spec, summaries=None)


def loaded(spec: SourceSpec, weeks: list[str]) -> tuple[IngestReport, list[list[tuple]]]:
    with warehouse() as con:
        return load(con, spec, weeks), [rows(con, table) for table in TABLES]


def file_of(spec: SourceSpec, name: str) -> Path:
    return next(Path(spec.location).rglob(name))


def test_a_look_reads_new_files_only(spec: SourceSpec, opened: list[str]) -> None:
    survey_source(spec)
    assert opened == ["a.csv", "b.csv", "c.csv"]
    opened.clear()
    csv(Path(spec.location), HEADER + "u9,e9,2024-01-10\n", "d.csv")
    os.utime(file_of(spec, "d.csv"), ns=(1, 1))  # by a clock that is wrong, or by rsync
    found = survey_source(spec)
    assert opened == ["d.csv"]
    assert found == survey_source(unaided(spec))
    opened.clear()
    assert (first_week_of(spec), describe_source(spec), opened) == (WEEKS[0], found[0], [])


@pytest.mark.parametrize(("week", "read"), [(0, ["a.csv", "b.csv"]), (1, ["b.csv"]), (2, ["c.csv"])])
def test_a_load_reads_the_files_with_rows_of_its_week(
    spec: SourceSpec, opened: list[str], week: int, read: list[str]
) -> None:
    survey_source(spec)
    opened.clear()
    found = loaded(spec, [WEEKS[week]])
    assert opened == read
    assert found == loaded(unaided(spec), [WEEKS[week]])


def test_a_load_of_a_week_without_rows_reads_no_file(spec: SourceSpec, opened: list[str]) -> None:
    survey_source(spec)
    opened.clear()
    report = loaded(spec, ["2024-01-22"])
    assert (opened, report[0].rows) == ([], {"2024-01-22": 0})
    assert report == loaded(unaided(spec), ["2024-01-22"])


def overwrite(spec: SourceSpec) -> None:
    """Same size, same time of change, same inode."""
    file = file_of(spec, "a.csv")
    before = file.stat()
    file.write_text(file.read_text().replace("u2", "u7"))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace_by_older(spec: SourceSpec) -> None:
    file = file_of(spec, "a.csv")
    fresh = file.with_suffix(".new")
    fresh.write_text(file.read_text().replace("u2", "u7"))
    os.utime(fresh, ns=(1, 1))
    fresh.replace(file)


def move_row(spec: SourceSpec) -> None:
    first, second = file_of(spec, "a.csv"), file_of(spec, "b.csv")
    late = "u3,e1,2024-01-05\n"
    second.write_text(second.read_text().replace(late, ""))
    first.write_text(first.read_text() + late)


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        (overwrite, [WEEKS[0]]),
        (replace_by_older, [WEEKS[0]]),
        (move_row, []),
        (lambda spec: file_of(spec, "b.csv").unlink(), WEEKS[:2]),
        (lambda spec: file_of(spec, "a.csv").rename(file_of(spec, "a.csv").with_name("z.csv")), []),
    ],
)
def test_changes_of_files_are_noticed(
    spec: SourceSpec, opened: list[str], change: Callable[[SourceSpec], object], changed: list[str]
) -> None:
    before = survey_source(spec)[1] or {}
    change(spec)
    found = survey_source(spec)
    after = found[1] or {}
    assert [week for week in WEEKS if before[week] != after.get(week)] == changed
    assert found == survey_source(unaided(spec))
    assert loaded(spec, WEEKS[:1]) == loaded(unaided(spec), WEEKS[:1])


def test_a_file_written_a_moment_ago_is_not_remembered(
    spec: SourceSpec, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files_module, "SETTLED_NS", 3_600_000_000_000)
    survey_source(spec)
    opened.clear()
    survey_source(spec)
    assert len(opened) == 3


def test_a_row_of_the_future_is_not_remembered(spec: SourceSpec, opened: list[str]) -> None:
    later = datetime.now(UTC) + timedelta(days=3)
    csv(Path(spec.location), f"{HEADER}u,e,{later:%Y-%m-%d %H:%M:%S}\n", "d.csv")
    assert describe_source(spec).rejected == {"missing_user": 1, "time_in_future": 1}
    opened.clear()
    assert describe_source(spec).rejected == {"missing_user": 1, "time_in_future": 1}
    assert opened == ["d.csv"]


def test_what_a_clock_that_was_set_back_contradicts_is_read(
    spec: SourceSpec, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    survey_source(spec)
    opened.clear()
    monkeypatch.setattr(files_module, "horizon", lambda: datetime(2024, 1, 8))
    survey_source(spec)
    assert opened == ["b.csv", "c.csv"]


def test_lines_and_times_that_cannot_be_read_are_remembered(spec: SourceSpec, opened: list[str]) -> None:
    log = Path(spec.location)
    csv(log, HEADER + 'u,e\n"u\n1",e,2024-01-09\nu,e,2024-01-09,x\n', "d.csv")  # malformed, and over two lines
    csv(log, HEADER + "u,e,soon\n", "e.csv")
    csv(log, HEADER, "f.csv")
    csv(log, "", "g.csv")
    (log / "h.jsonl").write_text('no object\n{"ip_address": "u", "event_id": "e", "timestamp": "2024-01-10"}\n')
    (log / "i.csv.gz").write_bytes(gzip.compress((HEADER + ROWS + "u\n").encode()))
    parquet(log, "SELECT 'u' AS ip_address, 'e' AS event_id, DATE '2024-01-12' AS timestamp", "j.parquet")
    (log / "k.json").write_text('[{"ip_address": "u", "event_id": "e", "timestamp": "2024-01-10"}]')
    found = survey_source(spec)
    assert found[0].rejected == {"missing_user": 1, "unreadable_line": 4, "unreadable_time": 1}
    assert found == survey_source(unaided(spec))
    opened.clear()
    assert survey_source(spec) == found
    assert opened == []
    assert loaded(spec, WEEKS[:1]) == loaded(unaided(spec), WEEKS[:1])
    # Rows without a week are recorded by every load.
    opened.clear()
    assert loaded(spec, WEEKS[2:])[0].rejected["unreadable_line"] == 4
    assert sorted(opened) == ["c.csv", "d.csv", "e.csv", "h.jsonl", "i.csv.gz"]


def of_another_version(_: str) -> str:
    text = '{"key": "what a later version may write"}'
    return f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}"


@pytest.mark.parametrize(
    "damage", [lambda text: text.replace("1", "2"), lambda text: "", lambda text: text[:-1], of_another_version]
)
def test_damaged_memory_is_not_trusted(spec: SourceSpec, opened: list[str], damage: Callable[[str], str]) -> None:
    found = survey_source(spec)
    assert spec.summaries
    spec.summaries.write_text(damage(spec.summaries.read_text()))
    opened.clear()
    assert survey_source(spec) == found
    assert opened == ["a.csv", "b.csv", "c.csv"]


def test_memory_that_cannot_be_written_is_done_without(spec: SourceSpec, opened: list[str]) -> None:
    a_file = next(file for file in Path(spec.location).rglob("*") if file.is_file())
    spec = replace(spec, summaries=a_file / "memory.json")
    assert survey_source(spec) == survey_source(unaided(spec))
    assert len(opened) == 6


def test_other_settings_are_another_reading(spec: SourceSpec, opened: list[str]) -> None:
    survey_source(spec)
    opened.clear()
    filtered = replace(spec, row_filter="event_id = 'e1'")
    assert survey_source(filtered) == survey_source(unaided(filtered))
    assert len(opened) == 6
    assert source_signature(spec) == source_signature(unaided(spec))


def test_one_kind_of_time_holds_for_remembered_files_too(spec: SourceSpec, opened: list[str]) -> None:
    survey_source(spec)
    csv(Path(spec.location), "ip_address,event_id,week_number\nu,e,1\n", "d.csv")
    with pytest.raises(SourceError, match=r"d.csv has no column 'timestamp'"):
        survey_source(replace(spec, week_number_anchor=(1, WEEKS[0])))
    with pytest.raises(SourceError, match=r"d.csv has no column 'timestamp'"):
        survey_source(spec)


def test_a_folder_that_was_emptied_is_an_error(spec: SourceSpec, opened: list[str]) -> None:
    survey_source(spec)
    for name in ("a.csv", "b.csv", "c.csv"):
        file_of(spec, name).write_text("")
    for _ in range(2):
        with pytest.raises(SourceError, match="has no rows"):
            survey_source(spec)


@pytest.mark.parametrize("seed", range(2))
def test_any_history_of_changes_is_understood_as_without_memory(spec: SourceSpec, opened: list[str], seed: int) -> None:
    draw, log = random.Random(seed), Path(spec.location)
    days = ["2024-01-01", "2024-01-07 23:59:59", "2024-01-08", "2024-01-21", "2023-12-31", "soon", ""]
    for _ in range(8):
        name = f"{draw.randrange(4)}.csv"
        text = "".join(f"u{draw.randrange(3)},e,{draw.choice(days)}\n" for _ in range(draw.randrange(4)))
        if draw.random() < 0.2 and (log / name).exists():
            (log / name).unlink()
        elif draw.random() < 0.3 and (log / name).exists():
            with (log / name).open("a") as file:
                file.write(text)
        else:
            csv(log, HEADER + text, name)
        if draw.random() < 0.8:
            assert survey_source(spec) == survey_source(unaided(spec))
        weeks = draw.sample(WEEKS, draw.randint(1, 3))
        assert loaded(spec, weeks) == loaded(unaided(spec), weeks)
