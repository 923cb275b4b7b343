"""What a stranger starts with: the Python that make finds, the bounds of dependencies, the wheel, the container."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FAKE_PYTHON = """#!/bin/sh
# Answers as a Python of version $VERSION would; `-m venv` makes an environment whose pip does nothing.
if [ "$1" = -c ]; then exec {python} -c "
import sys
sys.version_info = {version}
$2"; fi
mkdir -p "$3/bin" && echo "{version}" > "$3/version" && ln -s /bin/true "$3/bin/pip"
"""


def _make(folder: Path, pythons: Mapping[str, tuple[int, int]], *arguments: str) -> subprocess.CompletedProcess[str]:
    """`make` of the environment where only these programs are named python, each of its version."""
    programs = folder / "bin"
    programs.mkdir()
    for name in ("make", "sh", "mkdir", "ln", "touch", "test"):
        (programs / name).symlink_to(shutil.which(name) or name)
    for name, version in pythons.items():
        (programs / name).write_text(FAKE_PYTHON.format(python=sys.executable, version=version))
        (programs / name).chmod(0o755)
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    command = ["make", ".venv/.ready", *arguments]
    return subprocess.run(command, cwd=folder, env={"PATH": str(programs)}, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("pythons", "chosen"),
    [
        ({"python3.11": (3, 11), "python3.12": (3, 12), "python3": (3, 13)}, (3, 11)),
        ({"python3.12": (3, 12), "python3": (3, 11)}, (3, 12)),
        ({"python3": (3, 12)}, (3, 12)),
        ({"python3.11": (3, 9), "python3": (3, 11)}, (3, 11)),
    ],
)
def test_make_takes_the_first_python_that_suits(
    pythons: Mapping[str, tuple[int, int]], chosen: tuple[int, int], tmp_path: Path
) -> None:
    made = _make(tmp_path, pythons)
    assert made.returncode == 0, made.stderr
    assert (tmp_path / ".venv" / "version").read_text() == f"{chosen}\n"


def test_the_newest_release_in_the_changelog_is_the_version() -> None:
    released = re.findall(r"^## (\d\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert released[0] == PROJECT["version"]


@pytest.mark.parametrize("arguments", [(), ("PYTHON=python3",), ("PYTHON=python3.10",)])
def test_make_without_a_python_that_suits_says_which_it_needs(arguments: tuple[str, ...], tmp_path: Path) -> None:
    made = _make(tmp_path, {"python3": (3, 13)}, *arguments)
    assert made.returncode != 0
    assert "tgn_assets needs Python 3.11 or 3.12" in made.stderr and "make PYTHON=/path/to/python" in made.stderr
    assert not (tmp_path / ".venv").exists()


def test_the_demo_names_its_home_before_the_commands_that_need_it() -> None:
    command = ["make", "--dry-run", "demo", f"PYTHON={sys.executable}"]
    planned = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert 0 < planned.index("export TGN_HOME=") < planned.index("tgn backtest")


RUNTIME = [
    Requirement(line)
    for lines in (
        PROJECT["dependencies"],
        *(PROJECT["optional-dependencies"][name] for name in ("mlflow", "postgres", "s3")),
    )
    for line in lines
]
CALENDAR_VERSIONED = {"fsspec", "s3fs"}  # a year in front says nothing about what breaks


@pytest.mark.parametrize("requirement", RUNTIME, ids=lambda requirement: requirement.name)
def test_a_dependency_has_bounds_that_admit_the_version_of_ci(requirement: Requirement) -> None:
    operators = {bound.operator for bound in requirement.specifier}
    assert operators == ({">="} if requirement.name in CALENDAR_VERSIONED else {">=", "<"})
    pinned = dict(line.lower().split("==") for line in (ROOT / "constraints.txt").read_text().split())
    assert requirement.specifier.contains(pinned[requirement.name.lower().replace("_", "-")])


def test_python_3_11_and_3_12_are_admitted_and_no_other() -> None:
    admitted = SpecifierSet(PROJECT["requires-python"])
    assert [f"3.{minor}" for minor in range(9, 16) if admitted.contains(f"3.{minor}.1")] == ["3.11", "3.12"]


def test_the_wheel_has_the_package_and_its_data_and_no_tests(tmp_path: Path) -> None:
    left_out = shutil.ignore_patterns(".venv", ".git", ".tgn", ".bench", "*.egg-info", "build", "__pycache__")
    shutil.copytree(ROOT, tmp_path / "source", ignore=left_out)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    built = subprocess.run([*command, "-w", tmp_path, tmp_path / "source"], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    with ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        (entry_points,) = (name for name in wheel.namelist() if name.endswith(".dist-info/entry_points.txt"))
        assert "[dagster_dg_cli.registry_modules]\ntgn_assets = tgn_assets\n" in wheel.read(entry_points).decode()
    data = {"py.typed", "workspace.yaml", "cli/main.py", "reporting/weekly_page/page.html"}
    assert {f"tgn_assets/{name}" for name in data} <= names
    assert {name.split("/")[0] for name in names} == {"tgn_assets"}


@pytest.mark.e2e
def test_every_step_of_the_dockerfile_can_be_done_with_this_environment(tmp_path: Path) -> None:
    """Installing is left out: `python3 docker/check.py` does that too."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "docker" / "check.py"), "--here"]
    checked = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert checked.stdout.endswith("every step can be done\n")


def test_a_dockerfile_that_copies_what_is_not_there_is_found_out(tmp_path: Path) -> None:
    for name in ("docker", "Dockerfile", ".dockerignore"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, tmp_path / name)
    command = [sys.executable, str(tmp_path / "docker" / "check.py"), "--here"]
    checked = subprocess.run(command, capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (1, "FAILED: constraints.txt is not in the repository\n")
