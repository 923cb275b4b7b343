import threading
import time

import pytest
import torch

from tgn_assets.ml.parallel import map_threaded, run_alongside, workers


def test_results_keep_order_and_torch_gets_its_threads_back() -> None:
    before = torch.get_num_threads()
    assert list(map_threaded(lambda block: (block * 2, torch.get_num_threads()), range(5))) == [
        (0, 1),
        (2, 1),
        (4, 1),
        (6, 1),
        (8, 1),
    ]
    assert torch.get_num_threads() == before


def test_as_many_blocks_at_a_time_as_torch_has_threads() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        together = threading.Barrier(2, timeout=30)
        assert len(list(map_threaded(lambda _: together.wait(), range(4)))) == 4
    finally:
        torch.set_num_threads(before)


def test_few_results_wait_for_a_slow_reader() -> None:
    begun, threads = list[int](), torch.get_num_threads()

    def work(block: int) -> int:
        begun.append(block)
        return block

    results = map_threaded(work, range(100))
    assert next(results) == 0
    time.sleep(0.1)
    assert len(begun) <= 2 * threads + 1
    assert list(results) == list(range(1, 100))


def test_error_in_a_block_is_raised_and_threads_come_back() -> None:
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError):
        list(map_threaded(lambda block: 1 / block, [1, 0]))
    assert torch.get_num_threads() == before


def test_work_alongside_has_all_threads_but_one() -> None:
    before = torch.get_num_threads()
    with run_alongside(lambda threads: (threads, torch.get_num_threads())) as working:
        assert torch.get_num_threads() == 1
    assert working.result()[0] == max(before - 1, 1)
    assert torch.get_num_threads() == before


def test_body_uses_all_threads_and_nested_pools_have_one() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        together = threading.Barrier(3, timeout=30)

        def work(_: int) -> int:
            together.wait()
            with workers() as inner:
                return inner._max_workers

        with run_alongside(lambda threads: threads) as working, workers() as pool:
            assert list(pool.map(work, range(3))) == [1, 1, 1]
            assert len(list(map_threaded(lambda _: together.wait(), range(3)))) == 3
        assert working.result() == 2 and torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_work_after_the_body_leaves_it_all_threads() -> None:
    before, ended = torch.get_num_threads(), list[str]()
    with run_alongside(lambda threads: (list(ended), threads, torch.get_num_threads()), side_by_side=False) as waiting:
        assert torch.get_num_threads() == before
        ended.append("body")
    assert waiting.result() == (["body"], before, 1)
    assert torch.get_num_threads() == before


def test_failed_work_alongside_raises_at_its_result() -> None:
    def fails(_: int) -> None:
        raise ValueError("no forest")

    before = torch.get_num_threads()
    with run_alongside(fails) as working:
        pass
    with pytest.raises(ValueError, match="no forest"):
        working.result()
    assert torch.get_num_threads() == before
