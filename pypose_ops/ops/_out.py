"""Outputs that the caller brings: ``out=`` of the operators that draw."""

from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch.autograd import forward_ad

from ._arguments import check_tensor, map_dtype
from ._autograd import Unsupported, _flatten, call, register_fake


def out_dtype(op: str, dtype: torch.dtype | None, keypoints: torch.Tensor, *outs: torch.Tensor) -> torch.dtype:
    """The dtype to draw in: the one asked for, or that of ``out``, or that of the keypoints."""
    for out in outs:
        check_tensor(op, "out", out)
    return map_dtype(op, outs[0].dtype if dtype is None and outs else dtype, keypoints)


def draw(
    op: torch._ops.OpOverloadPacket, outs: tuple[torch.Tensor, ...], differentiable: Sequence[Any], *args: Any
) -> Any:
    """The operator's outputs: new ones, or ``outs``, into which it writes.

    Raises:
        RuntimeError: there are ``outs`` and an argument asks for a gradient.
        ValueError: an output is on another device than the first argument, or shares memory with an argument or with
            the other output.
    """
    if not outs:
        return call(op.default, differentiable, *args)
    if torch.compiler.is_compiling():
        op.out(*outs, *args)
        return outs if len(outs) > 1 else outs[0]
    name = op.__name__
    given = [arg for arg in _flatten(args)[1] if isinstance(arg, torch.Tensor)]
    tensors = [arg for arg in (*differentiable, *outs) if isinstance(arg, torch.Tensor)]
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        raise Unsupported(f"{name}: out= has no derivative, and an argument requires a gradient")
    if forward_ad._current_level >= 0 and any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors):
        raise Unsupported(f"{name}: out= has no derivative, and an argument has a tangent")
    for i, out in enumerate(outs):
        if out.device != given[0].device:  # torch dispatches to the device of either
            raise ValueError(f"{name}: out must be on the same device as the other tensors")
        if any(_overlap(out, arg) for arg in (*outs[:i], *given)):
            raise ValueError(f"{name}: out must not share memory with another argument")
    call(op.out, (), *outs, *args)
    torch.autograd.graph.increment_version(outs)
    return outs if len(outs) > 1 else outs[0]


def register_out(name: str) -> None:
    """Registers what ``pypose_ops::name.out`` is to a compiler, nothing to compute, and to vmap, which it refuses."""
    register_fake(f"pypose_ops::{name}.out")(lambda *args: None)

    def refuse(info: Any, in_dims: tuple[Any, ...], *args: Any) -> NoReturn:
        raise Unsupported(f"{name}: out= cannot be mapped by vmap")

    torch.library.register_vmap(f"pypose_ops::{name}.out", refuse)


def _overlap(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether the ranges of memory of two tensors overlap."""
    if a.device != b.device or a.device.type == "meta" or a.numel() == 0 or b.numel() == 0:
        return False
    try:
        (low, high), (other_low, other_high) = _memory(a), _memory(b)
    except RuntimeError:  # tensors of a transform have no memory
        return False
    return low < other_high and other_low < high


def _memory(tensor: torch.Tensor) -> tuple[int, int]:
    """The addresses from the first element to behind the last."""
    last = sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr(), tensor.data_ptr() + (last + 1) * tensor.element_size()
