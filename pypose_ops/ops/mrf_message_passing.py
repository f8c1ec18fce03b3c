"""Markov random fields over joints: messages between heatmaps through learned displacement priors."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch.autograd import forward_ad

from ._arguments import check_number, check_tensor, choice
from ._autograd import (
    call,
    call_backward,
    forward_mode,
    is_differentiated,
    register_derivative,
    register_fake,
    vmap_by_batch,
)

_ops = torch.ops.pypose_ops
_METHODS = ("sparse", "fft", "auto")
_KEPT_BYTES = 256e6  # of messages that "auto" keeps for backward
_SMALLEST_MESSAGE = 1e-30  # as in csrc/mrf/mrf_message_passing.h


def mrf_message_passing(
    unary: torch.Tensor,
    prior: torch.Tensor,
    bias: torch.Tensor,
    edges: Sequence[tuple[int, int]] | torch.Tensor,
    *,
    num_targets: int | None = None,
    floor: float = 1e-2,
    prior_index: Sequence[int] | torch.Tensor | None = None,
    method: Literal["sparse", "fft", "auto"] = "sparse",
    keep_messages: bool | Literal["auto"] = "auto",
) -> torch.Tensor:
    """One round of message passing between heatmaps: Tompson et al. (NIPS 2014), equation 2, on an edge list.

    Target ``j`` receives, from every edge ``e = (v, j)`` that ends there, where its source would expect it::

        u = max(unary, floor)
        message_e(x) = sum over y of prior_e(x - y) * u_v(y)  +  bias_e(x)
        out_j(x) = sum over e of log message_e(x)

    a convolution with zero padding. The share of the floor comes from sums over the prior, the rest from the pixels
    above the floor. The cost grows with the number of those pixels. Without a gradient no message is kept, only their
    product.

    Args:
        unary (Tensor): ``(B, V, H, W)``, float16, bfloat16, float32 or float64; the heatmap of each source joint.
            Non-finite pixels count as ``floor``.
        prior (Tensor): ``(E, kh, kw)``, float32 or float64, odd sizes: ``prior[e, kh // 2 + dy, kw // 2 + dx]`` weighs
            "the target is ``(dx, dy)`` pixels from the source". Any size: displacements beyond the map are never read.
            Weights that are negative or not finite count as 0.
        bias (Tensor): ``(E,)`` or ``(E, H, W)``, float32 or float64, positive: the score of a target without any
            support. Values that are negative or not finite count as 0.
        edges (list[tuple[int, int]]): ``(source, target)`` per edge, each pair at most once. A tensor is read back to
            the host; under ``torch.compile`` and in CUDA graphs pass a list.
        num_targets (int, optional): J; by default V. A target without edges gets a map of zeros.
        floor (float): positive; smallest value of a unary.
        prior_index (list[int], optional): which prior each edge uses, where edges share priors; ``prior`` then is
            ``(P, kh, kw)``.
        method (str): ``"sparse"``; or ``"fft"`` for unaries most of whose pixels are above the floor: plain torch,
            differentiable, with the messages in memory, one target at a time. Its absolute error is some 1e-7 of the
            largest message, so small messages lose digits in float32; the last bits depend on torch's FFT. ``"auto"``:
            the one that should be faster on a CPU for as many pixels above the floor as there are; ``"sparse"`` where
            counting them would wait for the device, and in compiled graphs.
        keep_messages (bool or str): where a gradient is asked for, keep the messages, ``(B, E, H, W)`` of the output's
            dtype, until backward, which otherwise computes them again, to the same bits. ``"auto"``: up to 256 MB of
            them on a CPU (of each entry under ``vmap``), and none in traced graphs, which are told by True.
            ``method="fft"`` leaves it to autograd.

    Returns:
        Tensor: ``(B, J, H, W)`` log-energies, contiguous, float32 (float64 for a float64 unary). A message that is 0
        counts as 1e-30, one of 2^127 or more as 2^128; contributions below some 1e-16 of a prior's sum are lost.

    Differentiable with respect to ``unary`` (pixels above the floor), ``prior`` and ``bias``, once, deterministically;
    ``keep_messages`` trades memory for time. With ``prior_index`` backward holds one gradient per edge before it adds
    them up.

    Raises:
        TypeError: an argument of the wrong Python type.
        ValueError: edges are not pairs of integers; an unknown method; another argument has the wrong shape, dtype,
            device or value; the message names it.

    Example:
        >>> unary = torch.rand(1, 2, 16, 12)
        >>> prior = torch.ones(2, 31, 23) / (31 * 23)
        >>> mrf_message_passing(unary, prior, torch.full((2,), 1e-3), [(0, 1), (1, 0)]).shape
        torch.Size([1, 2, 16, 12])
    """
    op = "mrf_message_passing"
    for name, tensor in (("unary", unary), ("prior", prior), ("bias", bias)):
        check_tensor(op, name, tensor)
    flat = flat_edges(op, edges)
    index = None if prior_index is None else _integers(op, "prior_index", prior_index)
    if prior_index is not None and flat and not index:  # empty is None to the operator
        raise ValueError(f"{op}: prior_index must have one number per edge, got none for {len(flat) // 2} edges")
    floor = check_number(op, "floor", floor)
    if not isinstance(keep_messages, bool | str):
        raise TypeError(f"{op}: keep_messages must be a bool or str, got {type(keep_messages).__name__}")
    if keep_messages not in (True, False, "auto"):
        raise ValueError(f'{op}: keep_messages must be True, False or "auto", got {keep_messages!r}')
    targets = num_targets
    if targets is None:
        targets = unary.shape[1] if unary.dim() > 1 else 0  # the operator refuses other ranks
    method = _METHODS[choice(op, "method", method, _METHODS)]
    if method == "auto":
        method = "fft" if _transforms_are_faster(unary, prior, flat, floor) else "sparse"
    # Transforms of nothing are an error in torch.
    if method == "fft" and unary.shape[:1].numel() > 0:
        return _fft_messages(unary, prior, bias, flat, index, targets, floor)
    args = (unary, prior, bias, flat, index, targets, floor)
    if _keeps(keep_messages, unary, prior, bias, len(flat) // 2):
        return call(_ops._mrf_message_passing_kept.default, (unary, prior, bias), *args)[0]
    return call(_ops.mrf_message_passing.default, (unary, prior, bias), *args)


def _keeps(wanted: bool | str, unary: torch.Tensor, prior: torch.Tensor, bias: torch.Tensor, edges: int) -> bool:
    """Whether to keep the messages for backward: only where there will be one."""
    if not wanted or forward_ad._current_level >= 0 or not is_differentiated(unary, prior, bias):
        return False
    if wanted is True:
        return True
    # Traced sizes are not asked for: they would become constants of the graph.
    if torch.compiler.is_compiling() or type(unary) not in (torch.Tensor, torch.nn.Parameter) or not unary.is_cpu:
        return False
    itemsize = 8 if unary.dtype == torch.float64 else 4
    return unary.shape[:1].numel() * edges * unary.shape[2:].numel() * itemsize <= _KEPT_BYTES


def flat_edges(op: str, edges: Sequence[tuple[int, int]]) -> list[int]:
    """``[source, target, source, target, ...]`` of a list, tuple, array or tensor of pairs."""
    if hasattr(edges, "tolist"):
        edges = edges.tolist()
    try:
        pairs = all(len(pair) == 2 for pair in edges)
    except TypeError:
        pairs = False
    if not pairs:
        raise ValueError(f"{op}: edges must be pairs (source, target), got {edges!r}")
    return _integers(op, "edges", [end for pair in edges for end in pair])


def _integers(op, name, values):
    if hasattr(values, "tolist"):
        values = values.tolist()
    if not isinstance(values, list | tuple) or any(not isinstance(v, int) for v in values):
        raise ValueError(f"{op}: {name} must be integers, got {values!r}")
    return list(values)


# Nanoseconds of one thread, measured: a multiplication of an active pixel with the prior, preparing an element of a
# prior, a transform per element and binary digit of its length, and the calls to torch per target.
_MULTIPLY, _PREPARE, _TRANSFORM, _CALLS = 0.045, 4.5, 0.65, 150_000
_BESIDE = 31  # outputs that vectors reach beyond those that a row of the prior does


def _transforms_are_faster(unary, prior, edges, floor):
    """Whether the transforms should be faster than the active pixels: by a model of both."""
    if torch.compiler.is_compiling() or type(unary) is not torch.Tensor or not unary.is_cpu:
        return False
    if unary.dim() != 4 or prior.dim() != 3 or unary.is_complex() or not edges:
        return False  # the operator says what is wrong
    images, sources, *size = unary.shape
    if 0 in unary.shape or not 0 <= min(edges[::2]) <= max(edges[::2]) < sources:
        return False
    degree = torch.bincount(torch.tensor(edges[::2]), minlength=sources)
    try:
        active = float((unary.detach() > floor).sum((0, 2, 3)) @ degree)
    except RuntimeError:  # under torch.func.vmap there are no values
        return False
    reach = [min(k // 2, n - 1) for k, n in zip(prior.shape[1:], size, strict=True)]
    met_rows = size[0] if reach[0] >= size[0] - 1 else min(size[0], 2 * reach[0] + 1)
    met_columns = min(size[1], 2 * reach[1] + 1 + _BESIDE)
    count = len(edges) // 2
    sparse = active * met_rows * met_columns * _MULTIPLY
    sparse += count * (2 * reach[0] + 1) * (2 * reach[1] + 1) * _PREPARE
    pixels = math.prod(n + r for n, r in zip(size, reach, strict=True))
    transforms = count * (images + 1) * pixels * math.log2(max(2, pixels)) * _TRANSFORM
    return sparse > transforms + len(set(edges[1::2])) * _CALLS


def _fft_messages(unary, prior, bias, edges, index, targets, floor):
    """The same numbers by transforms of (2 H, 2 W) and more; checked by the operator on an empty batch."""
    checked = (unary[:0].detach(), prior.detach(), bias.detach(), edges, index, targets, floor)
    call(_ops.mrf_message_passing.default, (), *checked)
    from scipy.fft import next_fast_len  # slow to import, and only needed here

    acc = torch.float64 if unary.dtype == torch.float64 else torch.float32
    height, width = unary.shape[-2:]
    u = unary.to(acc)
    u = torch.where(u.isfinite() & (u > floor), u, floor)
    prior, bias = (torch.where(t.isfinite() & (t >= 0), t, 0.0).to(acc) for t in (prior, bias))
    reach = [min(k // 2, n - 1) for k, n in zip(prior.shape[-2:], (height, width), strict=True)]
    prior = prior[
        :,
        prior.shape[-2] // 2 - reach[0] : prior.shape[-2] // 2 + reach[0] + 1,
        prior.shape[-1] // 2 - reach[1] : prior.shape[-1] // 2 + reach[1] + 1,
    ]
    size = [next_fast_len(n + r, real=True) for n, r in zip((height, width), reach, strict=True)]
    spectra = torch.fft.rfft2(u, s=size)
    bias = bias[:, None, None] if bias.dim() == 1 else bias
    sources, ends = edges[::2], edges[1::2]
    out = []
    for target in range(targets):
        members = [e for e, end in enumerate(ends) if end == target]
        if not members:
            out.append(u.new_zeros(u.shape[0], height, width))
            continue
        kernels = torch.fft.rfft2(_wrapped(prior[[index[e] if index else e for e in members]], reach, size))
        messages = torch.fft.irfft2(spectra[:, [sources[e] for e in members]] * kernels, s=size)
        messages = messages[..., :height, :width]
        # The true sum is not negative, what the transform leaves may be; where it is 0 it still has a gradient.
        below = messages.detach().clamp(max=0)
        messages = messages - below + bias[members]
        out.append(messages.clamp(min=_SMALLEST_MESSAGE).log().sum(1))
    return torch.stack(out, 1) if out else u.new_zeros(u.shape[0], 0, height, width)


def _wrapped(kernels, reach, size):
    """Kernels padded to the transform's size, displacement 0 at element 0."""
    padding = (0, size[1] - kernels.shape[-1], 0, size[0] - kernels.shape[-2])
    return torch.nn.functional.pad(kernels, padding).roll((-reach[0], -reach[1]), (-2, -1))


@register_fake("pypose_ops::mrf_message_passing")
def _fake_messages(unary, prior, bias, edges, prior_index, num_targets, floor):
    torch._check(unary.dim() == 4, lambda: "mrf_message_passing: unary must be (B, V, H, W)")
    dtype = torch.float64 if unary.dtype == torch.float64 else torch.float32
    return unary.new_empty((unary.shape[0], num_targets, unary.shape[2], unary.shape[3]), dtype=dtype)


@register_fake("pypose_ops::_mrf_message_passing_kept")
def _(unary, prior, bias, edges, prior_index, num_targets, floor):
    out = _fake_messages(unary, prior, bias, edges, prior_index, num_targets, floor)
    return out, out.new_empty((out.shape[0], len(edges) // 2, *out.shape[2:]))


@register_fake("pypose_ops::_mrf_message_passing_backward")
def _(grad, unary, prior, bias, edges, prior_index, floor, want_unary, want_prior, want_bias, messages=None):
    dtype = torch.float64 if unary.dtype == torch.float64 else torch.float32

    def like(tensor, wanted):
        return unary.new_empty(tensor.shape if wanted else (0,), dtype=dtype)

    return like(unary, want_unary), like(prior, want_prior), like(bias, want_bias)


def _setup_context(ctx, inputs, output):
    unary, prior, bias, edges, prior_index, _, floor = inputs
    ctx.save_for_backward(unary, prior, bias)
    ctx.options = (edges, prior_index, floor)


def _setup_kept(ctx, inputs, output):
    unary, prior, bias, edges, prior_index, _, floor = inputs
    messages = output[1]
    ctx.mark_non_differentiable(messages)
    ctx.set_materialize_grads(False)  # zeros for the messages would take as much memory as they
    ctx.save_for_backward(unary, prior, bias, messages)
    ctx.options = (edges, prior_index, floor)


def _backward(ctx, grad, _=None):
    if grad is None:  # not materialized
        return (None,) * 7
    saved = ctx.saved_tensors  # once: hooks, such as those of checkpoints, see every access
    tensors, messages = saved[:3], saved[3] if len(saved) == 4 else None
    wanted = ctx.needs_input_grad[:3]
    found = call_backward(_ops._mrf_message_passing_backward.default, grad, *tensors, *ctx.options, *wanted, messages)
    found = (g.to(t.dtype) if w else None for g, t, w in zip(found, tensors, wanted, strict=True))
    return *found, None, None, None, None


register_derivative("mrf_message_passing", _setup_context, _backward)
register_derivative("_mrf_message_passing_kept", _setup_kept, _backward)
register_derivative("_mrf_message_passing_backward")
vmap_by_batch("mrf_message_passing", 0)
vmap_by_batch("_mrf_message_passing_kept", 0)
vmap_by_batch("_mrf_message_passing_backward")


@forward_mode("mrf_message_passing")
def _(unary, prior, bias, edges, prior_index, num_targets, floor):
    from .. import reference  # here: it imports result types from this package

    return reference.mrf_message_passing(
        unary,
        prior,
        bias,
        list(zip(edges[::2], edges[1::2], strict=True)),
        num_targets=num_targets,
        floor=floor,
        prior_index=prior_index,
    )
