"""Exact marginals on a tree of joints with quadratic springs. In plain torch."""

from collections.abc import Sequence

import torch

from ..ops._results import Marginals
from .max_product import _Tree


def _log_sum(values, key=None):
    """logsumexp over the last axis that has no gradient, instead of NaN, where all values are -inf."""
    highest = values.detach().amax(-1, keepdim=True)
    highest = torch.where(highest.isfinite(), highest, 0.0)
    total = (values - highest).exp().sum(-1)
    return torch.where(total > 0, highest.squeeze(-1) + torch.where(total > 0, total, 1.0).log(), -torch.inf)


def sum_product(
    unary: torch.Tensor, edges: Sequence[tuple[int, int]] | torch.Tensor, deformation: torch.Tensor, *, root: int = 0
) -> Marginals:
    """Definition of :func:`pypose_ops.sum_product`."""
    tree = _Tree(unary, edges, deformation, _log_sum)
    beliefs = torch.stack([tree.belief(k) for k in range(unary.shape[1])], 1)
    total = _log_sum(beliefs.flatten(2))
    safe = torch.where(total.isfinite(), total, 0.0)[..., None, None]
    log_marginals = torch.where(beliefs.isfinite(), beliefs - safe, -torch.inf)
    return Marginals(log_marginals, total[:, root])
