import threading
import time
from collections.abc import Iterator

import pytest
import torch

from tgn_assets.ml.parallel import map_threaded, run_alongside, thread_pool


@pytest.fixture(autouse=True)
def before() -> Iterator[int]:
    """The number of torch's threads before the test, restored after it."""
    threads = torch.get_num_threads()
    yield threads
    torch.set_num_threads(threads)


def test_results_keep_order_and_torch_gets_its_threads_back(before: int) -> None:
    found = list(map_threaded(lambda block: (block * 2, torch.get_num_threads()), range(5)))
    assert found == [(2 * block, 1) for block in range(5)]
    assert torch.get_num_threads() == before


def test_as_many_blocks_at_a_time_as_torch_has_threads() -> None:
    torch.set_num_threads(2)
    together = threading.Barrier(2, timeout=30)
    assert len(list(map_threaded(lambda _: together.wait(), range(4)))) == 4


def test_few_results_wait_for_a_slow_reader(before: int) -> None:
    begun = list[int]()

    def work(block: int) -> int:
        begun.append(block)
        return block

    results = map_threaded(work, range(100))
    assert next(results) == 0
    time.sleep(0.1)
    assert len(begun) <= 2 * before + 1
    assert list(results) == list(range(1, 100))


def test_error_in_a_block_is_raised_and_threads_come_back(before: int) -> None:
    with pytest.raises(ZeroDivisionError):
        list(map_threaded(lambda block: 1 / block, [1, 0]))
    assert torch.get_num_threads() == before


def test_work_alongside_has_all_threads_but_one(before: int) -> None:
    with run_alongside(lambda threads: (threads, torch.get_num_threads())) as working:
        assert torch.get_num_threads() == 1
    assert working.result()[0] == max(before - 1, 1)
    assert torch.get_num_threads() == before


def test_body_uses_all_threads_and_nested_pools_have_one() -> None:
    torch.set_num_threads(3)
    together = threading.Barrier(3, timeout=30)

    def work(_: int) -> int:
        together.wait()
        with thread_pool() as inner:
            return inner._max_workers

    with run_alongside(lambda threads: threads) as working, thread_pool() as pool:
        assert list(pool.map(work, range(3))) == [1, 1, 1]
        assert len(list(map_threaded(lambda _: together.wait(), range(3)))) == 3
    assert working.result() == 2 and torch.get_num_threads() == 3


def test_work_after_the_body_leaves_it_all_threads(before: int) -> None:
    ended = list[str]()
    with run_alongside(lambda threads: (list(ended), threads, torch.get_num_threads()), side_by_side=False) as waiting:
        assert torch.get_num_threads() == before
        ended.append("body")
    assert waiting.result() == (["body"], before, 1)
    assert torch.get_num_threads() == before


def test_failed_work_alongside_raises_at_its_result(before: int) -> None:
    def fails(_: int) -> None:
        raise ValueError("no forest")

    with run_alongside(fails) as working:
        pass
    with pytest.raises(ValueError, match="no forest"):
        working.result()
    assert torch.get_num_threads() == before
