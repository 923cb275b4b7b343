"""The commands of docs/*.md run as they stand there."""

import gzip
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

import tgn_assets
from tgn_assets.ml.candidates.retrieval import CHANNELS
from tgn_assets.ml.evaluation.baselines import BASELINES
from tgn_assets_tests.support.postgres import Postgres
from tgn_assets_tests.support.s3 import BUCKET, SECRET, bucket

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
TEXTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
CODE = [ROOT / "tgn_assets", ROOT / "tgn_assets_tests", ROOT / "benchmarks"]
WITH_SERVERS = {"sources.md", "destinations.md"}
OWN = {"features.md"}  # each command in a fresh process: nothing is imported before, and training is as a preset says
TESTED_ELSEWHERE = {"operations.md"}  # test_operations.py: some of its commands are meant to fail
BLOCK = re.compile(r"(?P<skip><!-- not run: [^>]+ -->\n)?^```sh\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


def commands(text: str) -> str:
    """The shell blocks of a page, but those under a comment `<!-- not run: why -->`."""
    return "".join(found["code"] for found in BLOCK.finditer(text) if not found["skip"])


@pytest.mark.e2e
@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if page.name not in WITH_SERVERS | TESTED_ELSEWHERE and commands(page.read_text())],
    ids=lambda page: page.name,
)
def test_every_command_of_the_page_runs(page: Path, tmp_path: Path, tgn: Path) -> None:
    printed = run(page, tmp_path, tgn, {"TGN_PRESET": "fast"} if page.name in OWN else {})
    if page.name == "tutorial.md":
        untrained = page.read_text().split("## 2.")[0]
        assert [line for line in re.findall("^    (.+)$", untrained, re.MULTILINE) if line not in printed] == []


@pytest.mark.e2e
@pytest.mark.parametrize("name", sorted(WITH_SERVERS))
def test_every_command_of_a_page_that_takes_a_server_runs(
    name: str, tmp_path: Path, tgn: Path, postgres: Postgres
) -> None:
    """Besides PostgreSQL, a bucket with the log of sources.md."""
    with bucket() as s3:
        log = (ROOT / "docs" / "data" / "opam_commits.csv").read_bytes()
        s3.pipe(f"{BUCKET}/commits/2026.csv.gz", gzip.compress(log))
        printed = run(ROOT / "docs" / name, tmp_path, tgn, postgres.environment)
    # Dagster's history, with the logs and metadata of all runs, is among the files.
    left = [path for path in tmp_path.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    assert (left, SECRET in printed) == ([], False)


PROGRAM = """#!/bin/sh
if [ "$1" = generate ]; then {python} -m tgn_assets.cli.main "$@" | awk 'NR == 1 || NR % {every} == 0'; exit; fi
if [ "$1" = serve ] || {own}; then exec {python} -m tgn_assets.cli.main "$@"; fi
QUICK_TRAINING={{}} exec {tgn} "$@"
"""
"""`tgn`: a process of its own for a command that gets a signal and on a page of `OWN`, a preloaded one with a small
configuration for others; of the synthetic log every so many rows, as training on all of it takes half a minute."""
WHOLE_LOG = {"tutorial.md"}


def run(page: Path, tmp_path: Path, tgn: Path, environment: Mapping[str, str] = MappingProxyType({})) -> str:
    """What the commands print, in a folder that looks like the repository, with this Python as `.venv`."""
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "activate").write_text(f'PATH="{programs}:$PATH"\n')
    (programs / "python").symlink_to(sys.executable)
    every, own = 1 if page.name in WHOLE_LOG else 20, str(page.name in OWN).lower()
    (programs / "tgn").write_text(PROGRAM.format(python=sys.executable, tgn=tgn, every=every, own=own))
    (programs / "tgn").chmod(0o755)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("TGN_", "DAGSTER_"))}
    path = f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"
    # Nothing but what the page does puts `tgn` on the path, wherever the tests were started from.
    inherited["PATH"] = os.pathsep.join(
        place for place in os.environ["PATH"].split(os.pathsep) if not (Path(place) / "tgn").exists()
    )
    packages = [entry for entry in sys.path if entry.endswith("site-packages")]
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands(page.read_text())],
        cwd=tmp_path,
        env=inherited | dict(environment) | {"PYTHONPATH": ":".join([path, *packages])},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def test_links_lead_to_files() -> None:
    links = (
        (page, target) for page in TEXTS for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text())
    )
    assert [(page.name, target) for page, target in links if not (page.parent / target).exists()] == []


def test_files_and_modules_that_pages_name_exist() -> None:
    names, missing = {file.name for folder in CODE for file in folder.rglob("*.py")}, []
    for page in TEXTS:
        for name in re.findall(r"`([\w./]+\.py)`", page.read_text()):
            if name not in names and not any((folder / name).exists() for folder in (ROOT, *CODE)):
                missing.append((page.name, name))
        for module in re.findall(r"\b(?:benchmarks|tgn_assets)(?:\.\w+)+", page.read_text()):
            path = ROOT.joinpath(*module.split("."))
            public = module.removeprefix("tgn_assets.") in tgn_assets.PUBLIC
            if not (public or path.is_dir() or path.with_suffix(".py").exists()):
                missing.append((page.name, module))
    assert missing == []


def test_the_glossary_has_the_words_of_the_code() -> None:
    text = (ROOT / "docs" / "glossary.md").read_text()
    rows = dict(re.findall(r"^\| ([^|]+?) \| (.+) \|$", text, re.MULTILINE))
    code = {word for path in CODE[0].rglob("*.py") for word in re.findall(r"\w+", path.read_text())}
    names = [name for name in re.findall(r"`([A-Za-z_.]+)`", text) if not name.startswith("TGN_")]
    assert [name for name in names if not set(name.removesuffix(".json").split(".")) <= code] == []
    assert re.findall(r"`(\w+)`", rows["channel"]) == list(CHANNELS)
    assert re.findall(r"`(\w+)`", rows["baseline"]) == list(BASELINES)


def test_a_block_is_left_out_only_with_a_reason() -> None:
    page = "```sh\none\n```\n\n<!-- not run: needs a server -->\n```sh\ntwo\n```\n\n```sql\nthree\n```\n"
    assert commands(page) == "one\n"
