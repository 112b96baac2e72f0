"""Items in three overlapping steps: order, errors, limits."""

import threading
import time

import pytest

from genhmr_jax.recover import overlapped as module
from genhmr_jax.recover.overlapped import overlapped


def run(
    count, prepare=lambda i: i, solve=lambda many: many, finish=lambda s: s, weight=lambda p: 1
):
    return list(overlapped(range(1, count + 1), prepare, solve, finish, weight=weight))


def test_results_come_in_order_whatever_takes_long():
    slow = lambda i: time.sleep(0.03 * (i % 3)) or i
    found = run(20, slow, lambda many: [10 * one for one in many], lambda s: slow(s) + 1)
    assert found == [(i, 10 * i + 1) for i in range(1, 21)]


def test_an_error_belongs_to_its_item():
    def fails(at):
        def step(value):
            if value == at:
                raise ValueError(f"step of {at}")
            return value

        return step

    def solve(many):
        if 5 in many:
            raise MemoryError("too large")
        return many

    found = run(12, fails(3), solve, fails(7))
    wrong = {item: type(result) for item, result in found if isinstance(result, Exception)}
    assert wrong == {3: ValueError, 5: MemoryError, 7: ValueError}
    assert [item for item, _ in found] == list(range(1, 13))
    assert all(item == result for item, result in found if item not in wrong)


def test_nothing():
    assert run(0) == []


def test_groups_are_limited_by_weight_and_few_items_are_held():
    groups, held, most, lock = [], set(), [0], threading.Lock()

    def prepare(i):
        with lock:
            held.add(i)
            most[0] = max(most[0], len(held))
        return i

    def solve(many):
        groups.append(list(many))
        return many

    def finish(i):
        time.sleep(0.002)
        with lock:
            held.remove(i)
        return i

    run(200, prepare, solve, finish, weight=lambda i: 3)
    assert all(len(group) <= 3 for group in groups) and sum(map(len, groups)) == 200
    assert most[0] <= 2 * module.AHEAD + module.TOGETHER + 3


def test_it_stops_when_the_caller_stops():
    started = []
    steps = overlapped(
        range(1, 1000),
        lambda i: started.append(i) or i,
        lambda m: m,
        lambda s: s,
        weight=lambda p: 1,
    )
    with pytest.raises(KeyboardInterrupt):
        for item, _ in steps:
            if item == 3:
                steps.throw(KeyboardInterrupt())
    assert len(started) < 200
