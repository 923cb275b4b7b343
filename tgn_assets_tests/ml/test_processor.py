import platform
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tgn_assets.ml import processor as module
from tgn_assets.ml.processor import processor


@pytest.fixture(autouse=True)
def asked_anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("MKL_CBWR", raising=False)
    processor.cache_clear()
    yield
    processor.cache_clear()


def test_a_cpu_is_architecture_maker_and_vector_instructions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nvendor_id\t: Acme\nmodel name\t: One\n\nvendor_id\t: Acme\n")
    monkeypatch.setattr(module, "CPU_INFO", tmp_path / "cpuinfo")
    assert processor("cpu") == f"{platform.machine()} Acme {torch.backends.cpu.get_cpu_capability()}"


def test_a_cpu_without_a_known_maker_has_a_kind_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CPU_INFO", tmp_path / "none")
    assert processor("cpu") == f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


def test_a_mode_of_mkl_is_another_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MKL_CBWR", "AUTO,STRICT")
    assert processor("cpu").endswith(f"{torch.backends.cpu.get_cpu_capability()} AUTO,STRICT")


def test_a_gpu_is_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", {"cuda:1": "Fast 100"}.__getitem__)
    assert processor("cuda:1") == "Fast 100"
