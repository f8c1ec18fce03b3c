"""What peers' codecs compute, one joint at a time in float64 numpy, written from their formulas: the tests' oracle."""

import numpy as np


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
    """A pixel convolved with the kernel, the picture mirrored at its borders, divided by its value there, times 255."""
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
