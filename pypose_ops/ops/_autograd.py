"""How the wrappers meet autograd."""

import torch
from torch.autograd import forward_ad

_is_compiling = torch.compiler.is_compiling


def call(op, differentiable, *args):
    """``op(*args)``, past autograd's Python layer when none of the ``differentiable`` tensors asks for a gradient.

    That layer costs as much as a small kernel. Under a compiler, and in forward-mode differentiation (which the
    operators refuse), the ordinary way is taken.
    """
    if _is_compiling() or forward_ad._current_level >= 0:
        return op(*args)
    for tensor in differentiable:
        if getattr(tensor, "requires_grad", False) and torch.is_grad_enabled():
            return op(*args)
    with torch._C._AutoDispatchBelowAutograd():
        return op(*args)


def no_double_backward(op):
    """Refuses by name to differentiate ``pypose_ops::<op>``, a backward operator."""

    def setup_context(ctx, inputs, output):
        pass

    def backward(ctx, *grads):
        raise RuntimeError(f"{op.lstrip('_').removesuffix('_backward')}: double backward is not supported")

    torch.library.register_autograd(f"pypose_ops::{op}", backward, setup_context=setup_context)


def _empty_gradient(keypoints, grad):
    """A gradient as the kernels give it: with an axis of people where the operator knows people."""
    dtype = torch.float64 if grad.dtype == torch.float64 else torch.float32
    return keypoints.new_empty(keypoints.shape, dtype=dtype)
