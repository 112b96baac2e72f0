"""Several photos at the same time: preparation and output in threads, solving in between.

Python threads suffice: decoding, networks, drawing and compression release the interpreter lock.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

THREADS = max(2, min(os.cpu_count() or 1, 8))
AHEAD = 2 * THREADS
"""Items that are being prepared, and items that are being finished, at most. It limits memory."""
TOGETHER = 8
"""The weight from which prepared items are solved."""


def overlapped(
    items: Iterable[Any],
    prepare: Callable[[Any], Any],
    solve: Callable[[list[Any]], list[Any]],
    finish: Callable[[Any], Any],
    *,
    weight: Callable[[Any], int],
) -> Iterator[tuple[Any, Any]]:
    """Process every item in three steps, of which those of different items overlap.

    Args:
      items: the items.
      prepare: item -> prepared, in threads.
      solve: several prepared -> one solved for each, in the calling thread.
      finish: solved -> result, in threads.
      weight: of a prepared item, such as the number of people.

    Yields:
      (item, result) in the order of the items. The result is an Exception if a step raised it.
    """
    source, preparing, finishing = iter(items), deque(), deque()
    with ThreadPoolExecutor(THREADS) as pool:
        try:
            while True:
                # 1. Collect prepared items, while threads prepare the next ones.
                group, total = [], 0
                while total < TOGETHER:
                    while len(preparing) < AHEAD and (item := next(source, None)) is not None:
                        preparing.append((item, pool.submit(prepare, item)))
                    if not preparing:
                        break
                    item, future = preparing.popleft()
                    group.append((item, outcome(future)))
                    total += 0 if isinstance(group[-1][1], Exception) else weight(group[-1][1])
                if not group:
                    break
                # 2. Solve them, and finish them in threads.
                for item, solved in solved_group(group, solve):
                    failed = isinstance(solved, Exception)
                    finishing.append((item, solved if failed else pool.submit(finish, solved)))
                # 3. Report what is finished.
                while finishing and (len(finishing) > AHEAD or _is_done(finishing[0][1])):
                    yield _reported(*finishing.popleft())
            while finishing:
                yield _reported(*finishing.popleft())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def outcome(future: Future) -> Any:
    """The result of a step, or the Exception that it raised."""
    try:
        return future.result()
    except Exception as error:
        return error


def solved_group(
    group: list[tuple[Any, Any]], solve: Callable[[list[Any]], list[Any]]
) -> Iterator[tuple[Any, Any]]:
    """The solved items of a group. If they cannot be solved together, each is solved alone.

    Args:
      group: (item, prepared) pairs; an Exception in place of a prepared one stays as it is.
      solve: several prepared -> one solved for each.

    Yields:
      (item, solved) in the same order; an Exception where solving raised it.
    """
    prepared = [value for _, value in group if not isinstance(value, Exception)]
    try:
        together = iter(solve(prepared) if prepared else [])
    except Exception as error:
        if len(prepared) == 1:
            together = iter([error])
        else:
            alone = [next(solved_group([(None, value)], solve))[1] for value in prepared]
            together = iter(alone)
    for item, value in group:
        yield item, value if isinstance(value, Exception) else next(together)


def _is_done(finishing: Future | Exception) -> bool:
    return isinstance(finishing, Exception) or finishing.done()


def _reported(item: Any, finishing: Future | Exception) -> tuple[Any, Any]:
    return item, finishing if isinstance(finishing, Exception) else outcome(finishing)
