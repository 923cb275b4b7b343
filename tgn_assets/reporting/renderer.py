"""Draws Vega-Lite charts in a process of its own, which needs no browser and no network.

Its JavaScript engine starts while the process that asks goes on, and takes none of its memory; where the engine ends
its process, as with a limited address space, a picture is missing and nothing else. It ends with the process that asks.
"""

import atexit
import json
import sys
from contextlib import suppress
from subprocess import DEVNULL, PIPE, Popen
from threading import Lock

EMPTY = '{"data": {"values": []}, "mark": "point"}'


class ChartError(RuntimeError):
    """A picture cannot be drawn; the message says why."""


class Renderer:
    """The process that draws, which starts when it is first needed."""

    def __init__(self) -> None:
        self._process: Popen[str] | None = None
        self._lock = Lock()

    def start(self) -> None:
        """Starts the process unless it runs, and does not wait for it. What fails is said when a picture is drawn."""
        with self._lock, suppress(ChartError):
            self._running()

    def svg(self, chart: str) -> str:
        """The picture of a `chart`, a Vega-Lite specification in JSON; ChartError if it cannot be drawn."""
        with self._lock:
            # One that was interrupted is not used again: its answer would be taken for that of the next chart.
            process, self._process = self._running(), None
            assert process.stdin and process.stdout
            try:
                print(chart, file=process.stdin, flush=True)
                answer = process.stdout.readline()
            except OSError:
                answer = ""
            if not answer:
                raise ChartError(f"its process ended with {process.wait()}; is the address space limited (ulimit -v)?")
            self._process = process
        drawn, text = json.loads(answer)
        if not drawn:
            raise ChartError(text)
        return str(text)

    def stop(self) -> None:
        """Ends the process if it runs."""
        with self._lock:
            if self._process is not None:
                self._process.communicate()
                self._process = None

    def _running(self) -> Popen[str]:
        if self._process is None:
            command = [sys.executable, "-P", "-m", __name__]
            try:
                self._process = Popen(
                    command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, encoding="utf-8", start_new_session=True
                )
            except OSError as error:
                raise ChartError(f"no process can be started for it: {error.strerror}") from error
        return self._process


RENDERER = Renderer()
"""The one of this process."""
atexit.register(RENDERER.stop)


def main() -> None:
    """The process that draws: reads a chart a line, and writes a line for each: JSON of whether it was drawn, and of
    the picture or of what is wrong."""
    from vl_convert import vegalite_to_svg

    vegalite_to_svg(EMPTY)  # starts the engine
    for chart in sys.stdin:
        try:
            answer = True, vegalite_to_svg(chart)
        except BaseException as error:  # noqa: BLE001 (what the engine, which is written in Rust, calls a panic is no Exception)
            answer = False, " ".join(f"{type(error).__name__}: {error}".split())[:200]
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
