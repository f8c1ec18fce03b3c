"""The same bits whatever the threads, calls from several threads and forked workers, memory over many calls."""

import ctypes
import gc
import os
import random
import sys
import threading
import time
from typing import NamedTuple

import torch
from contract_tools import ForkedCalls, one_by_one
from torch.utils._pytree import tree_map_only

from .campaign import report
from .check import drawn, evaluate, outcome
from .compare import same_bits


def bits(options):
    """Every call with one thread, with two, and with one again: the same bits. Larger sizes make use of the threads."""
    failures = 0
    for number in range(options.first, options.first + options.calls):
        call = drawn(options.seed, number, options.scale)
        if options.only and call.name != options.only:
            continue
        results = []
        for count in (1, 2, 1):
            torch.set_num_threads(count)
            results.append(made(call, options))
        torch.set_num_threads(1)
        for other, what in ((results[1], "with two threads"), (results[2], "when called again")):
            if (other.error is None) != (results[0].error is None):
                text = "an error or none"
            elif other.error is None and not same_bits(other.tensors, results[0].tensors):
                text = "other bits"
            else:
                continue
            failures += 1
            report(options, number, f"{text} {what}", call)
            break
    print(f"{options.calls} calls on {options.device}, seed {options.seed}, scale {options.scale}: {failures} failures")
    return 1 if failures else 0


def made(call, options):
    """What an operator makes of a call on the device."""
    arguments = tree_map_only(
        torch.Tensor, lambda v: v.to("cuda" if options.device == "cuda" else "cpu"), call.arguments
    )
    return outcome(call.op, arguments, call.grad)


def pool_of(options, size=400):
    """Valid calls, and the tensors that each gives when nothing else runs."""
    numbers = range(options.first, options.first + size)
    calls = [c for c in (drawn(options.seed, n, options.scale) for n in numbers) if c.valid]
    return [(call, evaluate(call.op, call.arguments, call.grad)[0]) for call in calls]


def threads(options):
    """Calls from several threads at once for some time: the bits of the same calls made alone."""
    pool = pool_of(options)
    until = time.monotonic() + options.seconds
    made_by, failures = [0] * options.threads, []

    def work(thread):
        order = random.Random(thread)
        while time.monotonic() < until and not failures:
            call, expected = order.choice(pool)
            made_by[thread] += 1
            if not same_bits(evaluate(call.op, call.arguments, call.grad)[0], expected):
                failures.append(call.name)

    workers = [threading.Thread(target=work, args=(t,)) for t in range(options.threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print(
        f"{sum(made_by)} calls from {options.threads} threads in {options.seconds:g} s, seed {options.seed}: "
        f"{len(failures)} failures{' ' if failures else ''}{', '.join(failures)}"
    )
    return 1 if failures else 0


class Calls(ForkedCalls):
    """A data set whose items are the results of calls."""

    def __init__(self, pool, count):
        self.pool, self.count = pool, count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        call, _ = self.pool[index % len(self.pool)]
        return evaluate(call.op, call.arguments, call.grad)[0]


def workers(options):
    """Calls in the forked workers of a data loader, while the parent's thread pool is running."""
    torch.set_num_threads(2)
    pool = pool_of(options)
    loader = torch.utils.data.DataLoader(
        Calls(pool, options.calls),
        num_workers=options.workers,
        multiprocessing_context="fork",
        collate_fn=one_by_one,
        timeout=options.limit,
    )
    failures = 0
    for index, actual in enumerate(loader):
        call, expected = pool[index % len(pool)]
        if not same_bits(actual, expected):
            failures += 1
            print(f"FAILED in a worker: {call.name}")
    print(f"{options.calls} calls in {options.workers} forked workers, seed {options.seed}: {failures} failures")
    return 1 if failures else 0


class Memory(NamedTuple):
    """What the process holds.

    Attributes:
        resident: bytes of it, after the allocator has given back what it holds free.
        allocated: bytes that malloc has handed out: tensors, and everything else in C and C++.
        objects: blocks that Python's own allocator has handed out.
    """

    resident: int
    allocated: int
    objects: int


class MallocInfo(ctypes.Structure):
    """glibc's struct mallinfo2."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    ]


def held():
    """The memory of this process, when everything that is garbage is gone."""
    gc.collect()
    libc = ctypes.CDLL(None)
    libc.malloc_trim(0)
    libc.mallinfo2.restype = MallocInfo
    info = libc.mallinfo2()
    with open("/proc/self/statm") as file:
        resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return Memory(resident, info.uordblks + info.hblkhd, sys.getallocatedblocks())


def memory(options, size=400, points=20):
    """The same calls over and over, refused ones too: what the process holds after whole rounds of them.

    Not what it holds in between: the next call lives beside the error or the result of the last one, whichever it was.
    """
    calls = [drawn(options.seed, options.first + n, options.scale) for n in range(size)]
    rounds = max(points, options.calls // size)
    marks = {rounds * n // points for n in range(1, points + 1)}
    found = []
    start = time.perf_counter()
    for number in range(1, rounds + 1):
        for call in calls:
            outcome(call.op, call.arguments, call.grad)
        if number in marks:
            found.append(held())
            print(
                f"{number * size:>8} calls: {found[-1].resident / 2**20:.2f} MiB resident, "
                f"{found[-1].allocated} bytes allocated, {found[-1].objects} objects",
                flush=True,
            )
    elapsed = time.perf_counter() - start
    first, last = found[points // 2 - 1], found[-1]
    made = size * (rounds - rounds * (points // 2) // points)
    a_day = 86400 / elapsed * rounds * size / made * (last.allocated - first.allocated)
    print(
        f"{rounds * size} calls on {options.device}, seed {options.seed}, {elapsed:.0f} s: over the last {made} the "
        f"process grew by {(last.resident - first.resident) / 2**20:.2f} MiB, {last.allocated - first.allocated} "
        f"allocated bytes and {last.objects - first.objects} objects; at this rate {a_day / 2**20:.1f} MiB in 24 h"
    )
    return 0
