"""What the checks of op_contract.py are made of: odd layouts, recorded calls, forked workers, exact comparison."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

LAYOUTS = ("transposed", "sliced", "expanded", "channels_last")


def is_tensor(value):
    return isinstance(value, torch.Tensor)


def is_floating(value):
    return is_tensor(value) and value.is_floating_point()


def same_bits(actual, expected):
    for a, e in zip(tree_leaves(actual), tree_leaves(expected), strict=True):
        torch.testing.assert_close(a, e, rtol=0, atol=0, equal_nan=True)


def strided(tensor, layout):
    """A tensor of the same shape and another layout; "expanded" repeats the first row, the others keep the values."""
    if tensor.dim() == 0 or tensor.numel() == 0:
        return tensor
    if layout == "transposed":
        return tensor.transpose(0, -1).contiguous().transpose(0, -1)
    if layout == "sliced":  # an offset, every second element, and foreign values between
        size = tensor.shape[-1]
        buffer = torch.ones((*tensor.shape[:-1], 2 * size + 3), dtype=tensor.dtype, device=tensor.device)
        view = buffer[..., 3:].narrow(-1, 0, 2 * size)[..., ::2]
        return view.copy_(tensor)
    if layout == "expanded":
        return tensor[:1].expand_as(tensor)
    if layout == "channels_last":
        return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor
    raise ValueError(layout)


def weighted(result):
    """The outputs that have a gradient, and fixed random weights for them."""
    outputs = [o for o in tree_leaves(result) if is_floating(o) and o.requires_grad]
    assert outputs, "no output has a gradient"
    generator = torch.Generator().manual_seed(1)
    # Rounded to bfloat16, so that every dtype gets the same numbers.
    return outputs, [torch.randn(o.shape, generator=generator).bfloat16().to(o.device, o.dtype) for o in outputs]


class RecordOps(TorchDispatchMode):
    """Collects the calls that reach the project's operators, backward operators included."""

    def __init__(self, namespace):
        super().__init__()
        self.namespace, self.calls = namespace, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == self.namespace:
            fresh = tree_map_only(
                torch.Tensor, lambda t: t.detach().clone().requires_grad_(t.requires_grad), (args, kwargs or {})
            )
            self.calls.append((func, *fresh))
        return func(*args, **(kwargs or {}))


def only_on(*kernels):
    return pytest.mark.parametrize("kernels", kernels, indirect=True)


def captured_graph(call):
    """A CUDA graph of the call, and the tensors that its replays fill."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # modules are loaded, and cuDNN picks its algorithms, outside of the capture
        for _ in range(2):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = call()
    return graph, captured


class ForkedCalls(torch.utils.data.Dataset):
    """Runs a call in a data loader's workers."""

    def __init__(self, call):
        self.call = call

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return self.call()


def one_by_one(rows):
    return rows[0]


def keypoint_source(seed, default):
    """``rand(*shape)`` in float64, and ``points(*shape, size=default)``: keypoints in and a little outside of a map."""
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape):
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    def points(*shape, size=default):
        return rand(*shape, 2) * torch.tensor([size[1] + 3.0, size[0] + 3.0]) - 2

    return rand, points
