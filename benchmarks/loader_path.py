"""The usual way to feed a pose network, which training_step.py compares with.

One person after the other is cropped, and the targets drawn, by OpenCV (or Pillow) and NumPy in the processes of a data
loader; maps come back to the host and are decoded joint by joint. The augmentation is that of
``pypose_ops.models.crops``, from the same random numbers.
"""

import itertools
import math

import numpy as np
import PIL
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from pypose_ops.models.systems.system import Batch

try:
    import cv2

    WARP = f"OpenCV {cv2.__version__}"
except ModuleNotFoundError:
    cv2, WARP = None, f"Pillow {PIL.__version__}"


def box_of(box, padding, keypoints, labelled, upper, u, how):
    """A person's box, sometimes that of half a body, and its padding."""
    half = labelled & (upper == (u[7] < 0.5))
    if u[6] < how.half_body and labelled.sum() >= 8 and half.sum() >= 3:
        return np.concatenate((keypoints[half].min(0), keypoints[half].max(0))), 1.5
    return box, padding


def transform_of(box, padding, size, u, how):
    """``(2, 3)``, pixels of the crop -> pixels of the image, and whether the crop is a mirror image."""
    height, width = size
    x1, y1, x2, y2 = box
    w, h = x2 - x1, y2 - y1
    scale = padding * np.array([max(w, h * width / height), max(h, w * height / width)])
    center = np.array([x1 + w / 2, y1 + h / 2]) + how.shift * (2 * u[4:6] - 1) * scale
    step_x, step_y = scale * (1 + how.scale) ** (2 * u[1] - 1) / (width, height)
    flip = u[0] < how.flip
    step_x = -step_x if flip else step_x
    angle = math.radians(how.rotation * (u[2] + u[3] - 1))
    cos, sin = math.cos(angle), math.sin(angle)
    linear = np.array([[step_x * cos, -step_y * sin], [step_x * sin, step_y * cos]])
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    return np.column_stack((linear, center - linear @ middle)), flip


def warped(pixels, transform, size):
    """``(H, W, 3)`` uint8 -> ``(h, w, 3)`` uint8, bilinear, black outside."""
    height, width = size
    if cv2 is not None:
        return cv2.warpAffine(pixels, transform, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    # Pillow counts from the corners of pixels.
    moved = transform.copy()
    moved[:, 2] += 0.5 - transform[:, :2].sum(1) / 2
    source = Image.fromarray(pixels)
    return np.asarray(source.transform((width, height), Image.AFFINE, moved.flatten(), Image.BILINEAR))


def gaussian_targets(keypoints, visible, sigma, size):
    """A blob on the nearest pixel of each joint's map, in a window of three sigmas: maps and weights.

    Args:
        keypoints (ndarray): ``(K, 2)`` in pixels of the map.
        visible (ndarray): ``(K,)`` bool.
        sigma (float): in pixels of the map.
        size (tuple[int, int]): ``(height, width)``.

    Returns:
        tuple[ndarray, ndarray]: ``(K, height, width)`` and ``(K,)``, float32.
    """
    height, width = size
    reach = int(3 * sigma)
    grid = np.arange(-reach, reach + 1)
    blob = np.exp(-(grid**2 + grid[:, None] ** 2) / (2 * sigma**2)).astype(np.float32)
    maps = np.zeros((len(keypoints), height, width), np.float32)
    weights = np.zeros(len(keypoints), np.float32)
    for k, (x, y) in enumerate(np.floor(keypoints + 0.5).astype(int)):
        left, right = max(0, x - reach), min(width, x + reach + 1)
        top, bottom = max(0, y - reach), min(height, y + reach + 1)
        if visible[k] and left < right and top < bottom:
            part = blob[top - y + reach : bottom - y + reach, left - x + reach : right - x + reach]
            maps[k, top:bottom, left:right] = part
            weights[k] = 1
    return maps, weights


def decoded(maps, stride):
    """Each map's highest pixel, moved by a quarter towards the higher neighbours; -1 where no pixel is positive.

    ``(B, K, h, w)`` -> ``(B, K, 2)``, pixels of the input, which has ``stride`` for each of the map.
    """
    batch, joints, height, width = maps.shape
    index = maps.reshape(batch, joints, -1).argmax(-1)
    coords = np.stack((index % width, index // width), -1).astype(np.float32)
    for n in range(batch):
        for k in range(joints):
            image, x, y = maps[n, k], index[n, k] % width, index[n, k] // width
            if image[y, x] <= 0:
                coords[n, k] = -1 / stride
                continue
            if 1 < x < width - 1 and 0 < y:
                coords[n, k, 0] += 0.25 * np.sign(image[y, x + 1] - image[y, x - 1])
            if 1 < y < height - 1 and 0 < x:
                coords[n, k, 1] += 0.25 * np.sign(image[y + 1, x] - image[y - 1, x])
    return coords * stride


class CroppedPeople(Dataset):
    """People as a loader's processes make them.

    Args:
        people (People): with their images in memory.
        crops (Crops): size, normalisation and augmentation.
        draws (Tensor): ``(len(people), DRAWS)`` random numbers of the augmentation.
        codec (HourglassHeatmap): the targets' grid and sigma.
    """

    def __init__(self, people, crops, draws, codec):
        self.people, self.size, self.how, self.draws = people, crops.size, crops.augmentation, draws.numpy()
        self.mean, self.std = np.float32(crops.mean), np.float32(crops.std)
        self.flip_index, self.upper = np.array(crops.flip_index), np.array(crops.upper)
        self.map_size, self.sigma, self.stride = codec.size, codec.sigma, crops.size[0] // codec.size[0]

    def __len__(self):
        return len(self.people)

    def __getitem__(self, i):
        """Crop ``(h, w, 3)``, targets ``(K, h / 4, w / 4)``, weights ``(K,)``, joints ``(K, 2)`` and which count."""
        u = self.draws[i].astype(np.float64)
        keypoints, labelled = self.people.keypoints[i].numpy(), self.people.visible[i].numpy() > 0
        box, padding = self.people.boxes[i].numpy().astype(np.float64), float(self.people.padding[i])
        box, padding = box_of(box, padding, keypoints, labelled, self.upper, u, self.how)
        transform, flip = transform_of(box, padding, self.size, u, self.how)
        image = warped(self.people[i][1].numpy(), transform, self.size)
        colour = self.how.colour
        gain = np.float32((1 + colour) ** (2 * u[8] - 1) * (1 + colour / 3) ** (2 * u[9:12] - 1))
        image = image * (gain / self.std) - self.mean / self.std
        points = np.linalg.solve(transform[:, :2], (keypoints - transform[:, 2]).T).T
        height, width = self.size
        visible = labelled & ((points >= -0.5) & (points <= (width - 0.5, height - 0.5))).all(1)
        if flip:
            points, visible = points[self.flip_index], visible[self.flip_index]
        maps, weights = gaussian_targets(points / self.stride, visible, self.sigma, self.map_size)
        return image, maps, weights, points.astype(np.float32), visible


def no_threads(_):
    """Each loader process is one thread: OpenCV's would be more than there are cores."""
    if cv2 is not None:
        cv2.setNumThreads(0)


def loader_of(dataset, batch, order, steps, workers, pin):
    """``steps`` batches, again and again the whole ones of ``order``, by processes that live as long as they last."""
    whole = order[: len(order) // batch * batch]
    order = list(itertools.islice(itertools.cycle(whole), steps * batch))
    return DataLoader(dataset, batch, sampler=order, num_workers=workers, pin_memory=pin, worker_init_fn=no_threads)


def to_batch(items, device):
    """A loader's tensors on the device: :class:`Batch`, targets and weights."""
    images, maps, weights, keypoints, visible = (item.to(device, non_blocking=True) for item in items)
    return Batch(images.permute(0, 3, 1, 2), keypoints, visible), maps, weights


def maps_loss(stages, maps, weights):
    """The sum over the stages of the mean squared error, of joints that count."""
    weights = weights[..., None, None]
    return sum(torch.nn.functional.mse_loss(stage * weights, maps * weights) for stage in stages)
