"""One annotated person, and where its picture is."""

import functools
import io
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image


class PictureError(Exception):
    """A picture that cannot be decoded: its name and why."""


@functools.lru_cache(maxsize=32)
def _archive(path, process):
    # One handle for each process: forked ones would share the position in the file.
    return zipfile.ZipFile(path)


@functools.lru_cache(maxsize=32)
def members(path):
    """The names in a zip archive."""
    return frozenset(_archive(path, os.getpid()).namelist())


@dataclass(frozen=True)
class Picture:
    """A picture in a file, or in a member of a zip archive."""

    path: str
    member: str | None = None

    def __str__(self):
        return self.path if self.member is None else f"{self.path}/{self.member}"

    def read(self):
        """The encoded bytes."""
        if self.member is None:
            return Path(self.path).read_bytes()
        return _archive(self.path, os.getpid()).read(self.member)

    def exists(self):
        return os.path.exists(self.path) if self.member is None else self.member in members(self.path)

    def _open(self, convert):
        try:
            with Image.open(io.BytesIO(self.read())) as image:
                return convert(image)
        except Exception as error:  # Pillow, zipfile and zlib raise a dozen kinds
            raise PictureError(f"{self}: not a readable picture ({error or type(error).__name__})") from None

    def size(self):
        """``(height, width)``, from the header."""
        return self._open(lambda image: (image.height, image.width))

    def decode(self):
        """``(H, W, 3)`` uint8 RGB.

        Raises:
            PictureError: it is missing, damaged or no picture.
        """
        return self._open(lambda image: torch.from_numpy(np.array(image.convert("RGB"))))


@dataclass
class Sample:
    """One person. Coordinates are ``(x, y)`` in picture pixels, pixel centres at integers.

    Attributes:
        picture (Picture): where it is.
        keypoints (ndarray): ``(K, 2)`` float32; 0 where a joint is not labelled.
        visible (ndarray): ``(K,)`` uint8: 0 not labelled, 1 occluded, 2 to be seen.
        box (tuple or None): ``x1, y1, x2, y2``; None: the person is what the whole picture shows.
        others (ndarray): ``(P, K, 3)`` float32: x, y and visibility of the other people in the picture.
        center, scale: MPII's rough position and height / 200 px, where given.
        size (tuple or None): ``(height, width)`` of the picture, where known.
        head (tuple or None): MPII's head box ``x1, y1, x2, y2``.
    """

    picture: Picture
    keypoints: np.ndarray
    visible: np.ndarray
    box: tuple | None = None
    others: np.ndarray | None = None
    center: tuple | None = None
    scale: float | None = None
    size: tuple | None = None
    head: tuple | None = None

    def __post_init__(self):
        self.visible = np.asarray(self.visible, np.uint8)
        self.keypoints = np.where(self.visible[:, None] > 0, self.keypoints, 0).astype(np.float32)
        if self.others is None:
            self.others = np.zeros((0, len(self.visible), 3), np.float32)

    def joints_box(self, grow=1.06):
        """The bounds of the labelled joints, enlarged: with the padding of 1.25 they are 3/4 of the crop, as in LSP."""
        points = self.keypoints[self.visible > 0]
        low, high = points.min(0), points.max(0)
        half = np.maximum((high - low) * grow / 2, 1)
        return (*((low + high) / 2 - half).tolist(), *((low + high) / 2 + half).tolist())

    def drop(self, joints):
        """Makes these joints, (K,) bool, not labelled; a box that was made of the joints follows."""
        of_joints = self.box == self.joints_box()
        self.visible[joints], self.keypoints[joints] = 0, 0
        if of_joints and self.visible.any():
            self.box = self.joints_box()
