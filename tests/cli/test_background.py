"""Work in another thread, for what reads and writes files while the network runs."""

import threading

import pytest

from pypose_ops.cli.background import in_background


def test_results_come_in_order_and_are_computed_elsewhere():
    seen = set()

    def double(n):
        seen.add(threading.current_thread())
        return 2 * n

    assert list(in_background(double, range(20))) == [2 * n for n in range(20)]
    assert len(seen) == 1 and threading.current_thread() not in seen
    assert list(in_background(double, [])) == []


def test_items_are_taken_at_most_so_far_ahead():
    taken = []
    results = in_background(lambda n: n, (taken.append(n) or n for n in range(20)), most=3)
    assert next(results) == 0 and len(taken) == 4
    assert next(results) == 1 and len(taken) == 5
    results.close()
    assert len(taken) == 5


def test_an_exception_is_raised_in_its_place():
    results = in_background(lambda n: 1 // (2 - n), range(9))
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
