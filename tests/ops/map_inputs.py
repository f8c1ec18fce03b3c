"""Maps for the tests of decoders."""

import torch


def spots(height, width, *pixels):
    """One map (1, 1, H, W) of zeros with the given (x, y, value)."""
    maps = torch.zeros(1, 1, height, width)
    for x, y, value in pixels:
        maps[0, 0, y, x] = value
    return maps


def gaussians(centers, sigma, height, width):
    """Float64 maps (B, K, H, W) of Gaussians around centers (B, K, 2)."""
    x = torch.arange(width, dtype=torch.float64) - centers[..., 0, None, None]
    y = torch.arange(height, dtype=torch.float64)[:, None] - centers[..., 1, None, None]
    return torch.exp(-(x**2 + y**2) / (2 * sigma**2))
