import errno
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest

from tgn_assets.reporting import renderer
from tgn_assets.reporting.renderer import EMPTY, ChartError, Renderer


@pytest.fixture
def drawing() -> Iterator[Renderer]:
    found = Renderer()
    yield found
    found.stop()


def processes(of: psutil.Process) -> list[psutil.Process]:
    return [child for child in of.children() if renderer.__name__ in child.cmdline()]


def test_what_is_wrong_with_a_chart_is_said_and_the_next_one_is_drawn(drawing: Renderer) -> None:
    with pytest.raises(ChartError, match=r"^ValueError: Vega-Lite to SVG conversion failed"):
        drawing.svg('{"data": {"values": []}, "mark": "no such mark"}')
    assert drawing.svg(EMPTY).startswith("<svg")


def test_a_killed_process_costs_one_picture(drawing: Renderer) -> None:
    before = set(processes(psutil.Process()))
    drawing.start()
    (process,) = set(processes(psutil.Process())) - before
    process.kill()
    with pytest.raises(ChartError, match="ended with -9"):
        drawing.svg(EMPTY)
    assert drawing.svg(EMPTY).startswith("<svg")


def test_the_answer_to_an_interrupted_chart_is_not_taken_for_the_next_one(
    drawing: Renderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: Any, **kwargs: Any) -> None:
        print(*args, **kwargs)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(renderer, "print", interrupted, raising=False)
        with pytest.raises(KeyboardInterrupt):
            drawing.svg('{"data": {"values": [{}]}, "mark": "rect"}')
    assert drawing.svg(EMPTY) == drawing.svg(EMPTY)


def test_where_no_process_can_be_started_a_picture_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(renderer, "Popen", full)
    drawing = Renderer()
    drawing.start()
    with pytest.raises(ChartError, match="no process can be started for it: Resource temporarily unavailable"):
        drawing.svg(EMPTY)


def test_a_panic_of_the_engine_is_an_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def panics(chart: str) -> str:
        if chart == EMPTY:
            return ""
        raise type("PanicException", (BaseException,), {})("no JavaScript")

    monkeypatch.setattr("vl_convert.vegalite_to_svg", panics)
    monkeypatch.setattr(sys, "stdin", io.StringIO("{}\n"))
    renderer.main()
    assert json.loads(capsys.readouterr().out) == [False, "PanicException: no JavaScript"]


def test_it_ends_with_a_killed_parent() -> None:
    code = "from tgn_assets.reporting.renderer import RENDERER; RENDERER.start(); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout and parent.stdout.readline()
        (process,) = processes(psutil.Process(parent.pid))
        parent.kill()
    process.wait(timeout=60)
