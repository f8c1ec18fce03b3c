"""Loads decoded images of people in batches; they are cropped on the device (:mod:`.crops`)."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from pypose_ops.datasets import ImageError

# The limit of decoded images in memory; LSP and LSPET, 0.7 GB, fit.
MEMORY = 2 << 30


@dataclass
class Loaded:
    """People and their images; coordinates in image pixels.

    Attributes:
        pixels (Tensor): ``(sum of H W 3)`` uint8: the concatenated images, so that one copy moves them all.
        sizes (list[tuple[int, int]]): ``(height, width)`` of each.
        index (Tensor): ``(B,)`` int64: indices of the people in the data set.
        keypoints, visible: ``(B, K, 2)`` float32, ``(B, K)`` uint8 as in :class:`.data.Sample`.
        boxes (Tensor): ``(B, 4)`` ``x1, y1, x2, y2``.
        padding (Tensor): ``(B,)``: size of the crop relative to the box.
        others (Tensor or None): ``(B, P, K, 2)``, NaN: no person or no label.
        bad (list[str]): unreadable images, whose people are skipped.
    """

    pixels: torch.Tensor
    sizes: list[tuple[int, int]]
    index: torch.Tensor
    keypoints: torch.Tensor
    visible: torch.Tensor
    boxes: torch.Tensor
    padding: torch.Tensor
    others: torch.Tensor | None
    bad: list[str]

    def __len__(self) -> int:
        return len(self.index)

    def images(self) -> Any:
        """``(3, H, W)`` each; views."""
        parts = self.pixels.split([h * w * 3 for h, w in self.sizes])
        return [part.view(h, w, 3).permute(2, 0, 1) for part, (h, w) in zip(parts, self.sizes, strict=True)]

    def _each(self, function: Any) -> Any:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return Loaded(**{n: function(v) if isinstance(v, torch.Tensor) else v for n, v in values.items()})

    def to(self, *args: Any, **kwargs: Any) -> Any:
        return self._each(lambda tensor: tensor.to(*args, **kwargs))

    def pin_memory(self) -> Any:
        return self._each(torch.Tensor.pin_memory)


class People(Dataset[tuple[int, Any]]):
    """The people of a :class:`.data.PoseDataset` for a loader: an item is ``(number, image or ImageError)``.

    Args:
        dataset (PoseDataset): the people.
        memory (int): limit in bytes of cached decoded images; the others are decoded on every access.
    """

    def __init__(self, dataset: Any, memory: int = MEMORY) -> None:
        samples: Any = dataset.samples
        self.samples: Any = samples
        self.keypoints: torch.Tensor = torch.stack([torch.from_numpy(s.keypoints) for s in samples])
        self.visible: torch.Tensor = torch.stack([torch.from_numpy(s.visible) for s in samples])
        whole = [s.box is None for s in samples]
        boxes = [s.box or _whole_image(s.size or (1, 1)) for s in samples]
        self.boxes: torch.Tensor = torch.tensor(boxes, dtype=torch.float32)
        # Whole images need no padding.
        self.padding: torch.Tensor = torch.tensor([1.0 if w else 1.25 for w in whole])
        self.others: list[torch.Tensor] = [torch.from_numpy(s.others) for s in samples]
        self.cache: dict[Any, Any] = {}
        self._fill(memory)

    def _fill(self, memory: int) -> None:
        images = list(dict.fromkeys(s.image for s in self.samples))
        sizes = {s.image: s.size for s in self.samples}
        for image in images:
            height, width = sizes[image] or (0, 0)
            memory -= height * width * 3
            if memory < 0:
                break
            self.cache[image] = None
        with ThreadPoolExecutor() as pool:  # Pillow releases the GIL while decoding
            self.cache = dict(zip(self.cache, pool.map(_decoded, self.cache), strict=True))
        self.complete: bool = len(self.cache) == len(images)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, i: Any) -> Any:
        image = self.samples[i].image
        return i, self.cache[image] if image in self.cache else _decoded(image)

    def collate(self, items: Sequence[Any]) -> Any:
        """Items -> :class:`Loaded`."""
        bad = [str(image) for _, image in items if isinstance(image, ImageError)]
        items = [(i, image) for i, image in items if not isinstance(image, ImageError)]
        index = torch.tensor([i for i, _ in items], dtype=torch.int64)
        pixels = torch.cat([p.flatten() for _, p in items]) if items else torch.empty(0, dtype=torch.uint8)
        return Loaded(
            pixels=pixels,
            sizes=[tuple(p.shape[:2]) for _, p in items],
            index=index,
            keypoints=self.keypoints[index],
            visible=self.visible[index],
            boxes=self.boxes[index],
            padding=self.padding[index],
            others=self._others(index.tolist()),
            bad=bad,
        )

    def _others(self, index: Any) -> Any:
        most = max((len(self.others[i]) for i in index), default=0)
        if most == 0:
            return None
        others = torch.full((len(index), most, self.keypoints.shape[1], 2), float("nan"))
        for row, i in zip(others, index, strict=True):
            people = self.others[i]
            row[: len(people)] = people[..., :2].masked_fill(people[..., 2:] == 0, float("nan"))
        return others


def _whole_image(size: Any) -> Any:
    height, width = size
    return -0.5, -0.5, width - 0.5, height - 0.5


def _decoded(image: Any) -> Any:
    try:
        return image.decode()
    except ImageError as error:
        return error


def train_loader(
    people: Any,
    batch: int,
    *,
    seed: int = 0,
    rank: int = 0,
    world: int = 1,
    workers: int | None = None,
    pin: bool = False,
    sampler: Any = None,
) -> Any:
    """Batches of ``batch`` people, shuffled in every epoch depending only on ``seed``.

    ``world`` ranks with ``batch`` people each see, step by step, the same people as one with ``batch * world``.
    """
    # The last, smaller batch is dropped, unless some epoch has no other: a single person breaks batch normalisation.
    if sampler:
        return _loader(people, batch, sampler, workers, pin, drop_last=sampler.fills(batch))
    sampler = DistributedSampler(people, world, rank, shuffle=True, seed=seed)
    return _loader(people, batch, sampler, workers, pin, drop_last=len(sampler) >= batch)


def eval_loader(
    people: Any, batch: int, *, rank: int = 0, world: int = 1, workers: int | None = None, pin: bool = False
) -> Any:
    """All people once, in order, split over the ranks; if there are too few, every rank gets all."""
    part = range(rank, len(people), world) if len(people) >= world else range(len(people))
    return _loader(people, batch, part, workers, pin)


def _loader(people: Any, batch: int, sampler: Any, workers: int, pin: Any, drop_last: bool = False) -> Any:
    if workers is None:
        workers = 0 if people.complete else min(4, torch.get_num_threads())
    return DataLoader(
        people,
        batch,
        sampler=sampler,
        num_workers=workers,
        collate_fn=people.collate,
        drop_last=drop_last,
        pin_memory=pin,
        persistent_workers=workers > 0,
    )
