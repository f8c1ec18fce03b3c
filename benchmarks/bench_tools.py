"""What the benchmarks share: sizes, inputs that do not fit in a cache, device timing, the copy bandwidth."""

import functools
import itertools
import platform
import statistics
import subprocess
import time

import torch
from torch.utils._pytree import tree_leaves

import pypose_ops

# (batch, joints, height, width)
SHAPES = [(1, 17, 64, 48), (64, 17, 64, 48), (512, 17, 64, 48), (16, 133, 96, 72)]
HEADLINE = SHAPES[1]


def named(shape):
    return "x".join(str(n) for n in shape)


@functools.cache
def device_name(device):
    """What a figure depends on: the GPU with its driver, and the CUDA of torch and of the kernels."""
    if device.type != "cuda":
        return f"CPU {platform.machine()}"
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    driver = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()[0]
    toolkit = pypose_ops.build_info()["cuda_toolkit"]
    return f"{torch.cuda.get_device_name(device)}, driver {driver}, CUDA {torch.version.cuda}, nvcc {toolkit}"


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


def with_gradient(call):
    """The call, ``call(ops, first, *others)``, and the gradient of ``first`` for ones at all outputs.

    The ones are made once for every ``first``, and read from memory by every call.
    """
    weights = {}

    def run(ops, first, *others):
        leaf = first.detach().requires_grad_()
        outputs = [o for o in tree_leaves(call(ops, leaf, *others)) if o.requires_grad]
        if first.data_ptr() not in weights:
            weights[first.data_ptr()] = [torch.ones_like(o) for o in outputs]
        return torch.autograd.grad(outputs, leaf, weights[first.data_ptr()])

    return run


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


def graph_seconds(call, calls):
    """Median device time of a call when this many calls in a row are replayed as one CUDA graph: without launches."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(calls):
            call()
    return device_seconds(graph.replay) / calls


def host_seconds(call, seconds=0.3, least=5):
    """Median time of a call on the CPU, of `least` calls or more."""
    times = []
    call()
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(times) < least:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def copy_bandwidth(device):
    """Bytes per second, read plus written, of a copy far larger than the caches."""
    elements = 2**28 if device.type == "cuda" else 2**25
    source = torch.rand(elements, device=device)
    target = torch.empty_like(source)

    def call():
        target.copy_(source)

    return 2 * source.nbytes / (device_seconds(call) if device.type == "cuda" else host_seconds(call, 0.0))
