"""Calls with one argument replaced by something else: refused by name, or computed as the reference does."""

import dataclasses
import inspect
import math

import torch

STRANGE_NUMBERS = (math.nan, math.inf, -math.inf, 0.0, -1.0, 3e38, -1e-38)
STRANGE_INTEGERS = (-1, 0, 2**31, 2**40, 2**62, -(2**40))
STRANGE_SIZES = ((0, 5), (5, -1), (5,), (5, 4, 3), 5, None, "ab", (5.5, 4), (1 << 40, 1 << 40), (1 << 62, 3))
STRANGE_PAIRS = (None, 3, [(0,)], [(0, 1, 2)], [(0, 99)], [(-1, 0)], [("a", "b")], [(0.5, 1)], [(0, 1 << 40)])
PAIRS = ("limbs", "edges", "flip_pairs", "channels")


def broken(draw, call):
    """The call with one argument broken."""
    names = [n for n in inspect.signature(call.op).parameters if n in call.arguments]
    name = draw.pick(names)
    value = call.arguments[name]
    changed = other(draw, call, name, value)
    if name == "tags" and getattr(changed, "dtype", None) in (torch.bool, torch.uint8, torch.int64, torch.float16):
        changed = changed.to(torch.complex64)  # with few different tags assignments are equally good
    grad = tuple(n for n in call.grad if n != name)
    return dataclasses.replace(
        call,
        dtype=coarser(value, changed, call.dtype),
        arguments=call.arguments | {name: changed},
        grad=grad,
        valid=False,
        broken=f"{name} = {brief(changed)}",
    )


def coarser(value, changed, dtype):
    """The dtype that sets the tolerance: with another tensor in the place of one of float64, that one's may."""
    tensors = isinstance(value, torch.Tensor) and isinstance(changed, torch.Tensor)
    if not tensors or torch.float64 not in (dtype, value.dtype) or changed.dtype == torch.float64:
        return dtype
    # Operators that take integers compute in float32.
    return changed.dtype if changed.dtype in (torch.float16, torch.float32) else torch.float32


def other(draw, call, name, value):
    """Something else in the place of a value."""
    if name == "size":
        return draw.pick(STRANGE_SIZES)
    if name in PAIRS:
        return draw.pick(STRANGE_PAIRS)
    if name == "dtype":
        return draw.pick((torch.int32, torch.bool, torch.complex64, "float32", 5))
    if isinstance(value, torch.Tensor):
        return other_tensor(draw, value)
    if hasattr(value, "_fields"):  # a LocalPeaks
        field = draw.pick(value._fields)
        return value._replace(**{field: other_tensor(draw, getattr(value, field))})
    if isinstance(value, bool):
        return draw.pick((None, "yes", 3.5))
    if isinstance(value, int):
        return draw.pick((*STRANGE_INTEGERS, *STRANGE_NUMBERS, None, "one"))
    if isinstance(value, float):
        return draw.pick((*STRANGE_NUMBERS, 1 << 40, None, "one"))
    if isinstance(value, str):
        return draw.pick(("nonsense", "", None, 3))
    if isinstance(value, list):
        return draw.pick(([], value + value, None, 3.5, ["a"], [math.nan]))
    return draw.pick(("text", 7, -1.5, torch.ones(3), [1, 2, 3]))


def other_tensor(draw, tensor):
    """A tensor of another shape or dtype, or none at all."""
    kind = draw.pick(("shape", "shape", "shape", "dtype", "dtype", "none"))
    if kind == "none":
        return draw.pick((None, 1.0, "text", tensor.tolist() if tensor.numel() < 50 else [1.0]))
    if kind == "dtype":
        dtypes = (torch.float16, torch.float64, torch.float32, torch.int64, torch.bool, torch.complex64, torch.uint8)
        return tensor.to(draw.pick(dtypes))
    shape = list(tensor.shape)
    change = draw.pick(("drop", "add", "longer", "shorter", "empty"))
    if change == "add" or not shape:
        return tensor[None]
    dim = draw.integer(0, len(shape) - 1)
    if change == "drop":
        return tensor.select(dim, 0) if shape[dim] else tensor.sum(dim).to(tensor.dtype)
    shape[dim] = {"longer": shape[dim] + 1, "shorter": max(shape[dim] - 1, 0), "empty": 0}[change]
    out = torch.zeros(shape, dtype=tensor.dtype)
    keep = [slice(0, min(a, b)) for a, b in zip(shape, tensor.shape, strict=True)]
    out[tuple(keep)] = tensor[tuple(keep)]
    return out


def brief(value):
    if isinstance(value, torch.Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} tensor of {tuple(value.shape)}"
    if hasattr(value, "_fields"):
        return f"{type(value).__name__}({', '.join(brief(v) for v in value)})"
    return repr(value)[:80]
