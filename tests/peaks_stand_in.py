"""Peaks by plain torch, for tests and benchmarks of what comes after them."""

from typing import NamedTuple

import torch


class PeakSet(NamedTuple):
    coords: torch.Tensor  # (B, K, M, 2)
    scores: torch.Tensor  # (B, K, M)
    counts: torch.Tensor  # (B, K)


def local_maxima(heatmaps, threshold=0.1, max_peaks=32):
    """The best pixels above the threshold that are higher than their eight neighbours."""
    height, width = heatmaps.shape[-2:]
    padded = torch.nn.functional.pad(heatmaps.float(), (1, 1, 1, 1), value=-torch.inf)
    shifts = [(dy, dx) for dy in range(3) for dx in range(3) if (dy, dx) != (1, 1)]
    around = torch.stack([padded[..., dy : dy + height, dx : dx + width] for dy, dx in shifts]).amax(0)
    is_peak = (heatmaps > threshold) & (heatmaps > around)
    scores, index = heatmaps.float().masked_fill(~is_peak, 0).flatten(2).topk(max_peaks)
    coords = torch.stack((index % width, index // width), -1).float()
    return PeakSet(coords.where(scores[..., None] > 0, -1.0), scores, (scores > 0).sum(-1))
