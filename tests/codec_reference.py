"""Other libraries' codecs and decoders in float64 numpy, written from their formulas: the oracle of the tests."""

import numpy as np
import pytest
import torch

INPUT, GRID = (192, 256), (48, 64)  # (width, height), as codecs take them
SIZE = GRID[::-1]


def keypoints_of(batch=3, joints=17, beyond=25.0):
    """Keypoints in and around the input, and their visibility."""
    generator = torch.Generator().manual_seed(5)
    span = torch.tensor(INPUT) + 2 * beyond
    keypoints = torch.rand(batch, joints, 2, generator=generator, dtype=torch.float64) * span - beyond
    keypoints[0, :4] = torch.tensor([[0.0, 0.0], [8.0, 8.0], [191.0, 255.0], [-1.9, 3.0]])
    visible = (torch.rand(batch, joints, generator=generator) > 0.2).double()
    visible[0, :4] = 1
    return keypoints, visible


def window(mu, sigma):
    """MMPose's integer window [first, end) around pixel mu, and where its array has its middle."""
    reach = 3 * sigma
    first, end = int(mu - reach), int(mu + reach + 1)
    return first, end, first + (2 * reach + 1) // 2


def windowed(center, pixel, sigma, size):
    """A blob at ``middle + center`` cut to the windows around ``pixel``; None where both miss the map."""
    height, width = size
    (left, right, x), (top, bottom, y) = (window(p, sigma) for p in pixel)
    if left >= width or top >= height or right < 0 or bottom < 0:
        return None
    blob = gaussian((x + center[0], y + center[1]), sigma, size)
    kept = np.zeros(size)
    rows, columns = slice(max(top, 0), max(bottom, 0)), slice(max(left, 0), max(right, 0))
    kept[rows, columns] = blob[rows, columns]
    return kept


def gaussian(center, sigma, size):
    height, width = size
    x, y = np.arange(width), np.arange(height)[:, None]
    return np.exp(-((x - center[0]) ** 2 + (y - center[1]) ** 2) / (2 * sigma**2))


def trunc(point):
    return np.trunc(np.asarray(point)).astype(int)


def msra(point, sigma, size):
    return windowed((0, 0), trunc(point + 0.5), sigma, size)


def unbiased(point, sigma, size):
    height, width = size
    low, high = point - 3 * sigma, point + 3 * sigma + 1
    if low[0] >= width or low[1] >= height or high[0] < 0 or high[1] < 0:
        return None
    return gaussian(point, sigma, size)


def udp(point, sigma, size):
    pixel = trunc(point + 0.5)
    return windowed(point - pixel, pixel, sigma, size)


def combined(point, radius, size):
    height, width = size
    x = np.broadcast_to((point[0] - np.arange(width)) / radius, size)
    y = np.broadcast_to((point[1] - np.arange(height)[:, None]) / radius, size)
    return np.stack((np.where(x**2 + y**2 <= 1, 1.0, 0.0), x, y))


def megvii(point, kernel_size, size):
    """A pixel convolved with the kernel, the image mirrored at its borders, divided by its value there, times 255."""
    height, width = size
    x, y = trunc(point)
    if not (0 <= x < width and 0 <= y < height):
        return None
    reach = kernel_size // 2
    sigma = 0.3 * ((kernel_size - 1) / 2 - 1) + 0.8
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    axes = []
    for at, n in ((x, width), (y, height)):
        delta = np.zeros(n)
        delta[at] = 1
        line = np.convolve(np.pad(delta, reach, mode="reflect"), kernel, mode="valid")
        axes.append(line / line[at])
    return np.outer(axes[1], axes[0]) * 255


def cpm(points, sigma, size):
    """People summed, each cut where its exponent passes 4.6052, clipped; points (P, 2)."""
    total = np.zeros(size)
    for point in points:
        blob = gaussian(point, sigma, size)
        total += np.where(-np.log(np.maximum(blob, 1e-300)) > 4.6052, 0, blob)
    return np.minimum(total, 1)


def hourglass(point, sigma, size):
    """Torch7's image.gaussian of 2 ceil(3 sigma) + 1 pixels, whose standard deviation is a quarter of its size."""
    reach = int(np.ceil(3 * sigma))
    pixel = np.floor(point)
    blob = gaussian(pixel, 0.25 * (2 * reach + 1), size)
    x, y = np.arange(size[1]), np.arange(size[0])[:, None]
    return np.where((abs(x - pixel[0]) <= reach) & (abs(y - pixel[1]) <= reach), blob, 0)


def centernet_radius(width, height, overlap, corrected):
    a = (1, 4, 4 * overlap)
    b = (height + width, 2 * (height + width), -2 * overlap * (height + width))
    c = (
        width * height * (1 - overlap) / (1 + overlap),
        (1 - overlap) * width * height,
        (overlap - 1) * width * height,
    )
    roots = []
    for i in range(3):
        root = np.sqrt(b[i] ** 2 - 4 * a[i] * c[i])
        if not corrected:
            roots.append((b[i] + root) / 2)
        else:
            roots.append((b[i] + (root if i == 2 else -root)) / (2 * a[i]))
    return max(0, int(min(roots)))


def centernet(point, radius, size):
    pixel, sigma = trunc(point), (2 * radius + 1) / 6
    x, y = np.arange(size[1]), np.arange(size[0])[:, None]
    inside = (abs(x - pixel[0]) <= radius) & (abs(y - pixel[1]) <= radius)
    return np.where(inside, gaussian(pixel, sigma, size), 0)


def simcc(value, sigma, bins, ratio, normalize):
    mu = np.around(value * ratio)
    label = np.exp(-((np.arange(bins) - mu) ** 2) / (2 * sigma**2))
    return label / (sigma * np.sqrt(2 * np.pi)) if normalize else label


def dark(heatmap, kernel_size):
    """MMPose's (x, y, is the Hessian negative definite) of one float64 map: the step is taken wherever it exists."""
    cv2 = pytest.importorskip("cv2")
    height, width = heatmap.shape
    y, x = np.unravel_index(heatmap.argmax(), heatmap.shape)
    r = (kernel_size - 1) // 2
    padded = np.zeros((height + 2 * r, width + 2 * r))
    padded[r : r + height, r : r + width] = heatmap
    blurred = cv2.GaussianBlur(padded, (kernel_size, kernel_size), 0)[r : r + height, r : r + width]
    h = np.log(np.maximum(blurred * heatmap.max() / blurred.max(), 1e-10))
    if not (1 < x < width - 2 and 1 < y < height - 2):
        return float(x), float(y), False
    gradient = 0.5 * np.array([h[y, x + 1] - h[y, x - 1], h[y + 1, x] - h[y - 1, x]])
    dxx = 0.25 * (h[y, x + 2] - 2 * h[y, x] + h[y, x - 2])
    dyy = 0.25 * (h[y + 2, x] - 2 * h[y, x] + h[y - 2, x])
    dxy = 0.25 * (h[y + 1, x + 1] - h[y - 1, x + 1] - h[y + 1, x - 1] + h[y - 1, x - 1])
    hessian = np.array([[dxx, dxy], [dxy, dyy]])
    if np.linalg.det(hessian) == 0:
        return float(x), float(y), False
    offset = -np.linalg.solve(hessian, gradient)
    return x + offset[0], y + offset[1], bool(np.linalg.eigvalsh(hessian).max() < 0)


def quarter(heatmap):
    """MMPose's quarter of a pixel towards the larger neighbour."""
    height, width = heatmap.shape
    y, x = np.unravel_index(heatmap.argmax(), heatmap.shape)
    refined = [float(x), float(y)]
    if 1 < x < width - 1 and 0 < y < height:
        refined[0] += 0.25 * np.sign(heatmap[y, x + 1] - heatmap[y, x - 1])
    if 1 < y < height - 1 and 0 < x < width:
        refined[1] += 0.25 * np.sign(heatmap[y + 1, x] - heatmap[y - 1, x])
    return refined
