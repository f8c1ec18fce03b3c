"""Outputs that the caller brings: ``out=`` of the operators that draw."""

from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch.autograd import forward_ad

from ._arguments import check_tensor, map_dtype
from ._autograd import Unsupported, call, register_fake


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
        for tensor in (*differentiable, *outs):
            if isinstance(tensor, torch.Tensor):
                _refuse_gradient(op.__name__, tensor)
        op.out(*outs, *args)
        return outs if len(outs) > 1 else outs[0]
    name = op.__name__
    given = _tensors(args)
    for tensors in (differentiable, outs):
        for tensor in tensors:
            if isinstance(tensor, torch.Tensor):
                _refuse_derivative(name, tensor)
    for i, out in enumerate(outs):
        if out.device != given[0].device:  # torch dispatches to the device of either
            raise ValueError(f"{name}: out must be on the same device as the other tensors")
        if out.is_neg():
            raise ValueError(
                f"{name}: out must not be a view with its sign changed, such as the imaginary part of conj()"
            )
        low, high = _memory(out)
        for other in (*outs[:i], *given):
            other_low, other_high = _memory(other)
            if low < other_high and other_low < high and other.device == out.device:
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


# Of arguments that are no tensors: isinstance(argument, torch.Tensor) takes longer.
_PLAIN = frozenset((int, float, bool, type(None), torch.dtype))


def _tensors(args: Sequence[Any]) -> list[torch.Tensor]:
    """The tensors among the arguments, and in lists among them."""
    given = []
    for arg in args:
        if type(arg) in _PLAIN:
            continue
        if isinstance(arg, torch.Tensor):
            given.append(arg)
        elif isinstance(arg, list):
            given += [entry for entry in arg if isinstance(entry, torch.Tensor)]
    return given


def _refuse_gradient(name: str, tensor: torch.Tensor) -> None:
    if tensor.requires_grad and torch.is_grad_enabled():
        raise Unsupported(f"{name}: out= has no derivative, and an argument requires a gradient")


def _refuse_derivative(name: str, tensor: torch.Tensor) -> None:
    _refuse_gradient(name, tensor)
    if forward_ad._current_level >= 0 and forward_ad.unpack_dual(tensor).tangent is not None:
        raise Unsupported(f"{name}: out= has no derivative, and an argument has a tangent")


def _memory(tensor: torch.Tensor) -> tuple[int, int]:
    """The addresses from the first element to behind the last; an empty range where there are none."""
    try:
        low = tensor.data_ptr()
    except RuntimeError:  # tensors of a transform have no memory
        return 0, 0
    if low == 0 or tensor.numel() == 0:  # on the device meta, and fake
        return 0, 0
    if tensor.is_contiguous():
        return low, low + tensor.nbytes
    last = sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return low, low + (last + 1) * tensor.element_size()
