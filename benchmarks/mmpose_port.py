"""What MMPose 1.x computes on the CPU, rewritten from its formulas: numpy, one joint at a time, as it does it.

Peers for speed, and a second opinion on values. OpenCV does the blur, as there.
"""

import importlib.util
from pathlib import Path

import numpy as np


def peer_module(name):
    """One file of an installed MMPose's codecs, without importing the package, which needs MMCV; or None."""
    package = importlib.util.find_spec("mmpose")
    if package is None:
        return None
    path = Path(package.submodule_search_locations[0], "codecs", "utils", f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"peer_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def encode_msra(keypoints, sigma, size):
    """Quantised Gaussians in a square window of 3 sigma: (B, K, 2) -> (B, K, H, W), float32."""
    height, width = size
    maps = np.zeros((*keypoints.shape[:2], height, width), np.float32)
    radius = int(3 * sigma)
    axis = np.arange(2 * radius + 1) - radius
    patch = np.exp(-(axis[None] ** 2 + axis[:, None] ** 2) / (2 * sigma**2)).astype(np.float32)
    for b, k in np.ndindex(*keypoints.shape[:2]):
        x, y = (keypoints[b, k] + 0.5).astype(np.int64)
        left, right = max(0, x - radius), min(width, x + radius + 1)
        top, bottom = max(0, y - radius), min(height, y + radius + 1)
        if left >= width or top >= height or right <= 0 or bottom <= 0:
            continue
        window = patch[top - y + radius : bottom - y + radius, left - x + radius : right - x + radius]
        region = maps[b, k, top:bottom, left:right]
        np.maximum(region, window, out=region)
    return maps


def encode_unbiased(keypoints, sigma, size):
    """DARK's targets: the whole map around the exact coordinate."""
    height, width = size
    maps = np.zeros((*keypoints.shape[:2], height, width), np.float32)
    xs, ys = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
    for b, k in np.ndindex(*keypoints.shape[:2]):
        x, y = keypoints[b, k]
        blob = np.exp(-((xs - x) ** 2 + (ys - y) ** 2) / (2 * sigma**2))
        np.maximum(maps[b, k], blob, out=maps[b, k])
    return maps


def encode_udp(keypoints, sigma, size):
    """UDP's Gaussians: as MSRA's, but around the exact coordinate."""
    height, width = size
    maps = np.zeros((*keypoints.shape[:2], height, width), np.float32)
    radius = int(3 * sigma)
    axis = np.arange(2 * radius + 1) - radius
    for b, k in np.ndindex(*keypoints.shape[:2]):
        x, y = (keypoints[b, k] + 0.5).astype(np.int64)
        left, right = max(0, x - radius), min(width, x + radius + 1)
        top, bottom = max(0, y - radius), min(height, y + radius + 1)
        if left >= width or top >= height or right <= 0 or bottom <= 0:
            continue
        dx, dy = keypoints[b, k] - (x, y)
        patch = np.exp(-((axis[None] - dx) ** 2 + (axis[:, None] - dy) ** 2) / (2 * sigma**2)).astype(np.float32)
        window = patch[top - y + radius : bottom - y + radius, left - x + radius : right - x + radius]
        region = maps[b, k, top:bottom, left:right]
        np.maximum(region, window, out=region)
    return maps


def encode_combined(keypoints, radius, size):
    """UDP's discs and offsets: (B, K, 2) -> (B, 3 K, H, W)."""
    height, width = size
    maps = np.zeros((*keypoints.shape[:2], 3, height, width), np.float32)
    xs, ys = np.arange(width), np.arange(height)[:, None]
    for b, k in np.ndindex(*keypoints.shape[:2]):
        x, y = (keypoints[b, k, 0] - xs) / radius, (keypoints[b, k, 1] - ys) / radius
        maps[b, k, 0] = np.where(x**2 + y**2 <= 1, 1.0, 0.0)
        maps[b, k, 1], maps[b, k, 2] = x, y
    return maps.reshape(keypoints.shape[0], -1, height, width)


def encode_megvii(keypoints, kernel_size, size):
    """A pixel, blurred by OpenCV, its top 255."""
    import cv2

    height, width = size
    maps = np.zeros((*keypoints.shape[:2], height, width), np.float32)
    for b, k in np.ndindex(*keypoints.shape[:2]):
        x, y = keypoints[b, k].astype(np.int64)
        if 0 <= x < width and 0 <= y < height:
            maps[b, k, y, x] = 1
            maps[b, k] = cv2.GaussianBlur(maps[b, k], (kernel_size, kernel_size), 0)
            maps[b, k] *= 255 / maps[b, k, y, x]
    return maps


def encode_simcc(keypoints, sigma, size, split_ratio=2):
    """Labels of both axes as densities: (B, K, bins of x), (B, K, bins of y)."""
    labels = []
    for axis in range(2):
        bins = round(size[1 - axis] * split_ratio)
        label = np.zeros((*keypoints.shape[:2], bins), np.float32)
        grid = np.arange(bins, dtype=np.float32)
        for b, k in np.ndindex(*keypoints.shape[:2]):
            label[b, k] = np.exp(-((grid - np.around(keypoints[b, k, axis] * split_ratio)) ** 2) / (2 * sigma**2))
        labels.append(label / (sigma * np.sqrt(2 * np.pi)))
    return labels


def decode_argmax(maps):
    """(B, K, H, W) -> coordinates (B, K, 2), scores (B, K); -1 where there is no positive value."""
    flat = maps.reshape(*maps.shape[:2], -1)
    index = flat.argmax(-1)
    scores = flat.max(-1)
    coordinates = np.stack((index % maps.shape[-1], index // maps.shape[-1]), -1).astype(np.float32)
    coordinates[scores <= 0] = -1
    return coordinates, scores


def decode_quarter(maps):
    """A quarter pixel toward the higher neighbour, per axis; version 1's border rule."""
    coordinates, scores = decode_argmax(maps)
    height, width = maps.shape[-2:]
    for b, k in np.ndindex(*scores.shape):
        x, y = coordinates[b, k].astype(np.int64)
        if 1 < x < width - 1 and 0 < y < height:
            coordinates[b, k, 0] += 0.25 * np.sign(maps[b, k, y, x + 1] - maps[b, k, y, x - 1])
        if 1 < y < height - 1 and 0 < x < width:
            coordinates[b, k, 1] += 0.25 * np.sign(maps[b, k, y + 1, x] - maps[b, k, y - 1, x])
    return coordinates, scores


def decode_dark(maps, kernel_size=11):
    """Blur every map, take logarithms, then one Newton step around each argmax."""
    import cv2

    coordinates, scores = decode_argmax(maps)
    height, width = maps.shape[-2:]
    border = (kernel_size - 1) // 2
    logs = np.empty_like(maps)
    for b, k in np.ndindex(*scores.shape):
        padded = np.zeros((height + 2 * border, width + 2 * border), np.float32)
        padded[border : border + height, border : border + width] = maps[b, k]
        blurred = cv2.GaussianBlur(padded, (kernel_size, kernel_size), 0)
        blurred = blurred[border : border + height, border : border + width]
        logs[b, k] = np.log(np.maximum(blurred * (maps[b, k].max() / blurred.max()), 1e-10))
    for b, k in np.ndindex(*scores.shape):
        x, y = coordinates[b, k].astype(np.int64)
        if not (1 < x < width - 2 and 1 < y < height - 2):
            continue
        h = logs[b, k]
        dx = 0.5 * (h[y, x + 1] - h[y, x - 1])
        dy = 0.5 * (h[y + 1, x] - h[y - 1, x])
        dxx = 0.25 * (h[y, x + 2] - 2 * h[y, x] + h[y, x - 2])
        dyy = 0.25 * (h[y + 2, x] - 2 * h[y, x] + h[y - 2, x])
        dxy = 0.25 * (h[y + 1, x + 1] - h[y - 1, x + 1] - h[y + 1, x - 1] + h[y - 1, x - 1])
        hessian = np.array([[dxx, dxy], [dxy, dyy]])
        if np.linalg.det(hessian) != 0:
            coordinates[b, k] -= np.linalg.inv(hessian) @ np.array([dx, dy])
    return coordinates, scores


def decode_dark_udp(maps, kernel_size=11):
    """Blur every map, take logarithms, then one Newton step around each argmax with the narrower differences of UDP."""
    import cv2

    coordinates, scores = decode_argmax(maps)
    height, width = maps.shape[-2:]
    border = (kernel_size - 1) // 2
    for b, k in np.ndindex(*scores.shape):
        padded = np.zeros((height + 2 * border, width + 2 * border), np.float32)
        padded[border : border + height, border : border + width] = maps[b, k]
        blurred = cv2.GaussianBlur(padded, (kernel_size, kernel_size), 0)
        blurred = blurred[border : border + height, border : border + width]
        h = np.log(np.clip(blurred * (maps[b, k].max() / blurred.max()), 1e-3, 50))
        h = np.pad(h, 1, mode="edge")
        x, y = coordinates[b, k].astype(np.int64) + 1
        dx, dy = 0.5 * (h[y, x + 1] - h[y, x - 1]), 0.5 * (h[y + 1, x] - h[y - 1, x])
        dxx = h[y, x + 1] - 2 * h[y, x] + h[y, x - 1]
        dyy = h[y + 1, x] - 2 * h[y, x] + h[y - 1, x]
        dxy = h[y + 1, x + 1] - h[y, x + 1] - h[y + 1, x] + 2 * h[y, x] - h[y, x - 1] - h[y - 1, x] + h[y - 1, x - 1]
        hessian = np.array([[dxx, 0.5 * dxy], [0.5 * dxy, dyy]]) + np.finfo(np.float32).eps * np.eye(2)
        coordinates[b, k] -= np.linalg.solve(hessian, [dx, dy])
    return coordinates, scores
