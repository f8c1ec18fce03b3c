"""What the benchmarks share: sizes, inputs that do not fit in a cache, device timing, the copy bandwidth."""

import itertools
import platform
import statistics
import time

import torch

# (batch, joints, height, width)
SHAPES = [(1, 17, 64, 48), (64, 17, 64, 48), (512, 17, 64, 48), (16, 133, 96, 72)]
HEADLINE = SHAPES[1]


def named(shape):
    return "x".join(str(n) for n in shape)


def device_name(device):
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU {platform.machine()}"


def pixels(shape):
    return shape[0] * shape[1] * shape[2] * shape[3]


def settle_allocator():
    """As in any long-running process: after this, glibc serves outputs of up to 32 MB from memory it holds.

    It maps and unmaps what is larger than the largest block freed so far: without this a row would pay page faults, or
    not, depending on the rows before it. Larger outputs always pay them; "floor, allocated" shows how much that is.
    """
    torch.empty(31 * 2**20, dtype=torch.uint8)


class Rotating:
    """Calls over several equal inputs in turn and keeps each one's last output, so that no call finds its data cached.

    On the CPU there is one input: the figures there are ratios of calls that share a cache.
    """

    def __init__(self, call, make_inputs, device, bytes_moved):
        copies = 1
        if device.type == "cuda":
            l2 = torch.cuda.get_device_properties(device).L2_cache_size
            copies = min(64, 2 + 2 * l2 // max(1, bytes_moved))
        self.call, self.inputs = call, [make_inputs() for _ in range(copies)]
        self.outputs = [None] * copies
        self.turn = itertools.cycle(range(copies))

    def __call__(self):
        i = next(self.turn)
        if len(self.inputs) == 1:
            return self.call(*self.inputs[0])
        self.outputs[i] = self.call(*self.inputs[i])
        return self.outputs[i]


def synchronized(call, device):
    if device.type != "cuda":
        return call

    def run():
        result = call()
        torch.cuda.synchronize()
        return result

    return run


def device_seconds(call, groups=9, seconds=0.02):
    """Median time of a call by CUDA events around groups of calls; launches overlap the work before them."""

    def group(calls):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(calls):
            call()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3 / calls

    group(3)
    calls = max(3, min(2000, int(seconds / max(group(5), 1e-7))))
    return statistics.median(group(calls) for _ in range(groups))


def copy_bandwidth(device):
    """Bytes per second, read plus written, of a copy far larger than the caches."""
    elements = 2**28 if device.type == "cuda" else 2**25
    source = torch.rand(elements, device=device)
    target = torch.empty_like(source)

    def call():
        target.copy_(source)

    if device.type == "cuda":
        seconds = device_seconds(call)
    else:
        times = []
        for _ in range(7):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        seconds = statistics.median(times)
    return 2 * source.nbytes / seconds
