"""Calls that may not take longer than a tick, whoever answers them: Dagster ends a tick after 60 s."""

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


def call_with_timeout(seconds: float, call: Callable[[], T]) -> T:
    """What `call` returns; TimeoutError if it takes longer, and then it goes on in a thread that nobody waits for."""
    result = Future[T]()

    def do() -> None:
        try:
            result.set_result(call())
        except Exception as error:  # noqa: BLE001 (raised where it is waited for)
            result.set_exception(error)

    Thread(target=do, daemon=True).start()
    return result.result(seconds)
