"""The spatial model of Tompson et al. (NIPS 2014): displacement priors between joints, trained through the heatmaps."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import nn

from pypose_ops import mrf_message_passing


class SpatialModel(nn.Module):
    """Joints support each other at the displacements that they expect::

        out_j = log max(heatmap_j, floor) + weight * sum over the edges (v, j) of log message_(v, j)

    with the messages of :func:`pypose_ops.mrf_message_passing`. Prior and bias are the SoftPlus of the parameters, so
    they stay positive. The paper's sum is ``weight=1``; its self-edge, a prior of displacement 0, is the first term.
    On a full graph the same evidence arrives many times, so ``weight`` is learned, as the exponential of a parameter.

    The edges are part of the state dict, so that pruned models can be loaded (:meth:`prune`).

    Args:
        prior (Tensor): ``(E, kh, kw)``, positive: initial priors, displacement 0 in the centre.
        edges (list[tuple[int, int]]): ``(source, target)`` per prior, such as those of :func:`full_edges`,
            :func:`limb_edges` or :func:`tree_edges`.
        num_joints (int): J. Heatmaps beyond the first J (a torso, a centre map) are sources only.
        bias (float or Tensor): initial bias, positive: of every message, or ``(E,)``, or ``(E, H, W)`` per pixel.
        floor (float): smallest value of a heatmap, above 0; at most 0.01 in the paper.
        beta (float): of the SoftPlus, ``log(1 + exp(beta x)) / beta``; 1/2 to 2 in the paper.
        weight (float): initial weight of the messages, positive.
        method (str): of :func:`pypose_ops.mrf_message_passing`.
    """

    beta: float
    floor: float
    method: str
    num_joints: int
    raw_bias: nn.Parameter
    raw_prior: nn.Parameter

    def __init__(
        self,
        prior: torch.Tensor,
        edges: Sequence[tuple[int, int]],
        num_joints: int,
        *,
        bias: torch.Tensor | float = 1e-4,
        floor: float = 1e-2,
        beta: float = 1.0,
        weight: float = 1.0,
        method: str = "sparse",
    ) -> None:
        super().__init__()
        self.edges: tuple[tuple[int, ...], ...] = tuple((int(v), int(j)) for v, j in edges)
        if len(self.edges) != len(prior):
            raise ValueError(
                f"SpatialModel: prior must have one kernel per edge, got {len(prior)} for {len(edges)} edges"
            )
        if any(j >= num_joints for _, j in self.edges):
            raise ValueError(f"SpatialModel: targets must be below num_joints = {num_joints}, got edges {self.edges}")
        if not torch.is_tensor(bias):
            bias = torch.full((len(self.edges),), float(bias))
        for name, values in (("prior", prior), ("bias", bias)):
            if not values.is_meta and not ((values > 0) & values.isfinite()).all():
                raise ValueError(f"SpatialModel: {name} must be positive and finite, got {values.min().item():g}")
        if not (floor > 0 and beta > 0 and weight > 0):
            raise ValueError("SpatialModel: floor, beta and weight must be positive")
        self.num_joints, self.floor, self.beta, self.method = num_joints, floor, beta, method
        self.raw_prior = nn.Parameter(self._inverse_softplus(prior))
        self.raw_bias = nn.Parameter(self._inverse_softplus(bias))
        self.log_weight: nn.Parameter = nn.Parameter(torch.tensor(math.log(weight)))
        self.register_buffer("edge_index", torch.tensor(self.edges, dtype=torch.long).reshape(-1, 2))

    @classmethod
    def from_displacements(
        cls,
        poses: torch.Tensor,
        visible: torch.Tensor,
        edges: Sequence[tuple[int, int]],
        size: tuple[int, int],
        num_joints: int,
        *,
        smooth: int = 4,
        smallest: float = 1e-6,
        **options: Any,
    ) -> "SpatialModel":
        """Builds a model whose priors are histograms of the displacements between target and source.

        Args:
            poses (Tensor): ``(N, V, 2)``, ``(x, y)`` in heatmap pixels, people at the scale of the heatmaps.
            visible (Tensor): ``(N, V)`` bool: which coordinates count.
            edges (list[tuple[int, int]]): ``(source, target)``.
            size (tuple[int, int]): ``(height, width)`` of the heatmaps; the priors hold every displacement in it.
            num_joints (int): see the class.
            smooth (int): times that the histogram is smoothed by [1 2 1] / 4 in both directions: a standard
                deviation of ``sqrt(smooth / 2)`` pixels.
            smallest (float): added to every weight, relative to a sum of 1 per prior.
            options: of the class.
        """
        prior = displacement_histograms(poses, visible, edges, size)
        taps = torch.tensor([math.comb(2 * smooth, i) / 4**smooth for i in range(2 * smooth + 1)])
        prior = nn.functional.conv2d(prior[:, None], taps.view(1, 1, -1, 1), padding=(smooth, 0))
        prior = nn.functional.conv2d(prior, taps.view(1, 1, 1, -1), padding=(0, smooth))[:, 0]
        total = prior.sum((-2, -1), keepdim=True)
        # No person has both joints: every displacement is equally likely.
        prior = torch.where(total > 0, prior / total.clamp(min=1e-30), 1.0 / prior[0].numel())
        return cls(prior + smallest, edges, num_joints, **options)

    @property
    def prior(self) -> torch.Tensor:
        """``(E, kh, kw)``, positive."""
        return nn.functional.softplus(self.raw_prior, self.beta)

    @property
    def bias(self) -> torch.Tensor:
        """``(E,)`` or ``(E, H, W)``, positive."""
        return nn.functional.softplus(self.raw_bias, self.beta)

    @property
    def weight(self) -> torch.Tensor:
        return self.log_weight.exp()

    def forward(self, heatmaps: torch.Tensor) -> torch.Tensor:
        """heatmaps ``(B, V, H, W)`` -> log-energies ``(B, num_joints, H, W)``; non-finite pixels count as the floor."""
        messages = self.messages(heatmaps)
        return self.evidence(heatmaps).to(messages.dtype) + self.weight * messages

    def messages(self, heatmaps: torch.Tensor) -> torch.Tensor:
        """The sum of the logarithms of the messages to each joint, ``(B, num_joints, H, W)``."""
        return mrf_message_passing(
            heatmaps,
            self.prior,
            self.bias,
            self.edges,
            num_targets=self.num_joints,
            floor=self.floor,
            method=self.method,
        )

    def evidence(self, heatmaps: torch.Tensor) -> torch.Tensor:
        """The logarithm of each joint's own heatmap, ``(B, num_joints, H, W)``, float32 or float64."""
        own = heatmaps[:, : self.num_joints]
        own = own.to(torch.promote_types(own.dtype, torch.float32))
        return torch.where(own.isfinite() & (own > self.floor), own, self.floor).log()

    def information(self) -> torch.Tensor:
        """``(E,)``: the Kullback-Leibler divergence of each prior from the uniform one, in nats."""
        flat = self.prior.detach().flatten(1)
        p = flat / flat.sum(1, keepdim=True)
        return (p * (p * p.shape[1]).log()).sum(1)

    @torch.no_grad()
    def prune(self, least: float) -> list[tuple[int, int]]:
        """Removes, in place, edges with less than ``least`` nats of information; returns the removed edges.

        The parameters are replaced: create a new optimiser afterwards.
        """
        keep = self.information() >= least
        removed = [edge for edge, kept in zip(self.edges, keep.tolist(), strict=True) if not kept]
        self._set_edges(self.edge_index[keep], self.raw_prior[keep], self.raw_bias[keep])
        return removed

    def _set_edges(self, edge_index: torch.Tensor, raw_prior: torch.Tensor, raw_bias: torch.Tensor) -> None:
        self.edges: tuple[tuple[int, int], ...] = tuple(map(tuple, edge_index.tolist()))
        self.edge_index = edge_index
        self.raw_prior, self.raw_bias = nn.Parameter(raw_prior), nn.Parameter(raw_bias)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Resizes the model to the saved edges before loading."""
        saved = [state_dict.get(prefix + name) for name in ("edge_index", "raw_prior", "raw_bias")]
        if all(map(torch.is_tensor, saved)) and not torch.equal(saved[0].to(self.edge_index), self.edge_index):
            now = (self.edge_index, self.raw_prior, self.raw_bias)
            self._set_edges(*(t.detach().to(old, copy=True) for t, old in zip(saved, now, strict=True)))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def draw(self, names: Sequence[str] | None = None, columns: int = 6) -> Image.Image:
        """The priors as an image (PIL): one panel per edge, displacement 0 at the cross."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from PIL import Image

        names = names or [str(v) for v in range(1 + max((max(edge) for edge in self.edges), default=0))]
        rows = max(1, -(-len(self.edges) // columns))
        figure = Figure(figsize=(2 * columns, 2.2 * rows), dpi=80)
        canvas = FigureCanvasAgg(figure)
        for n, (prior, (source, target)) in enumerate(zip(self.prior.detach().cpu(), self.edges, strict=True)):
            axis = figure.add_subplot(rows, columns, n + 1)
            y, x = (size // 2 for size in prior.shape)
            axis.imshow(prior.float().numpy(), extent=(-x - 0.5, x + 0.5, y + 0.5, -y - 0.5), cmap="viridis")
            axis.plot(0, 0, "+", color="white")
            axis.set_title(f"{names[source]} > {names[target]}", fontsize=7)
            axis.tick_params(labelsize=5)
        figure.tight_layout()
        canvas.draw()
        return Image.frombytes("RGBA", canvas.get_width_height(), bytes(canvas.buffer_rgba())).convert("RGB")

    def _inverse_softplus(self, value: torch.Tensor) -> torch.Tensor:
        """x with softplus(x) = value; linear from where exp would overflow."""
        scaled = value.detach().double() * self.beta
        raw = torch.where(scaled > 30, scaled, scaled.clamp(max=30).expm1().log()) / self.beta
        return raw.to(torch.float64 if value.dtype == torch.float64 else torch.float32)


def displacement_histograms(
    poses: torch.Tensor, visible: torch.Tensor, edges: Sequence[tuple[int, int]], size: tuple[int, int]
) -> torch.Tensor:
    """``(E, 2 H - 1, 2 W - 1)`` counts of ``round(target - source)``, displacement 0 in the centre.

    Displacements beyond the map are ignored.
    """
    height, width = size
    out = torch.zeros(len(edges), 2 * height - 1, 2 * width - 1)
    for e, (source, target) in enumerate(edges):
        both = visible[:, source] & visible[:, target]
        d = (poses[both, target] - poses[both, source]).round().long() + torch.tensor([width - 1, height - 1])
        d = d[((d >= 0) & (d < torch.tensor([2 * width - 1, 2 * height - 1]))).all(1)]
        index = d[:, 1] * (2 * width - 1) + d[:, 0]
        out[e] = torch.bincount(index, minlength=out[e].numel()).view_as(out[e])
    return out
