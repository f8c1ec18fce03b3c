"""Message passing in plain torch."""

from collections.abc import Sequence
from typing import Literal

import torch


def mrf_message_passing(
    unary: torch.Tensor,
    prior: torch.Tensor,
    bias: torch.Tensor,
    edges: Sequence[tuple[int, int]] | torch.Tensor,
    *,
    num_targets: int | None = None,
    floor: float = 1e-2,
    prior_index: Sequence[int] | torch.Tensor | None = None,
    method: Literal["sparse", "fft"] = "sparse",
    keep_messages: bool | Literal["auto"] = "auto",
) -> torch.Tensor:
    """Definition of :func:`pypose_ops.mrf_message_passing`: one grouped convolution, every message in memory.

    ``method`` and ``keep_messages`` say how the operator computes; the definition is the same.
    """
    acc = torch.float64 if unary.dtype == torch.float64 else torch.float32
    edges = edges.tolist() if hasattr(edges, "tolist") else edges
    sources, targets = [list(side) for side in zip(*edges, strict=True)] or [[], []]
    prior, bias = (torch.where(t.isfinite() & (t >= 0), t, 0.0).to(acc) for t in (prior, bias))
    if prior_index is not None:
        prior = prior[torch.as_tensor(prior_index, dtype=torch.int64, device=prior.device)]
    u = unary.to(acc)
    u = torch.where(u.isfinite() & (u > floor), u, floor)
    count = unary.shape[1] if num_targets is None else num_targets
    out = u.new_zeros(u.shape[0], count, *u.shape[2:])
    if not sources:
        return out
    kh, kw = prior.shape[-2:]
    # conv2d slides its kernel over the map without turning it round: turned here, it becomes the convolution.
    messages = torch.nn.functional.conv2d(
        u[:, sources], prior.flip(-1, -2)[:, None], padding=(kh // 2, kw // 2), groups=len(sources)
    )
    messages = messages + (bias[:, None, None] if bias.dim() == 1 else bias)
    targets = torch.as_tensor(targets, device=u.device)
    return out.index_add(1, targets, messages.clamp(min=1e-30).log())
