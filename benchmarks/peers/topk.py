"""implicit's top-k: the 5 largest products of each of `users` with `events`, after a short warm-up."""

import sys
import time

import numpy as np
from implicit.cpu.topk import topk
from threadpoolctl import threadpool_limits


def main(source: str, target: str) -> None:
    threadpool_limits(1, "blas")  # as implicit's warning asks for: it has threads of its own
    given = np.load(source)
    users, events = given["users"], given["events"]
    topk(events, users[:512], 5)
    start = time.perf_counter()
    lists, _ = topk(events, users, 5)
    np.savez(target, seconds=time.perf_counter() - start, lists=lists)


if __name__ == "__main__":
    main(*sys.argv[1:])
