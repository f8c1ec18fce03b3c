"""An annotated person and the file of the image."""

from dataclasses import dataclass

import numpy as np

from .images import ImageFile


@dataclass
class Sample:
    """One person. Coordinates are ``(x, y)`` in pixels of the upright image, pixel centres at integers.

    Attributes:
        image (ImageFile): the file.
        keypoints (ndarray): ``(K, 2)`` float32; 0 for unlabelled joints.
        visible (ndarray): ``(K,)`` uint8: 0 not labelled, 1 occluded, 2 visible.
        box (tuple or None): ``x1, y1, x2, y2``; None: the whole image shows the person.
        others (ndarray): ``(P, K, 3)`` float32: x, y and visibility of the other people in the image.
        center, scale: MPII's rough position and height / 200 px, where given.
        size (tuple or None): ``(height, width)`` of the image, where known.
        head (tuple or None): MPII's head box ``x1, y1, x2, y2``.
        annotation (int or None): which of a COCO file's people this is.
    """

    image: ImageFile
    keypoints: np.ndarray
    visible: np.ndarray
    box: tuple[float, float, float, float] | None = None
    others: np.ndarray | None = None
    center: tuple[float, float] | None = None
    scale: float | None = None
    size: tuple[int, int] | None = None
    head: tuple[float, float, float, float] | None = None
    annotation: int | None = None

    def __post_init__(self) -> None:
        self.visible = np.asarray(self.visible, np.uint8)
        with np.errstate(over="ignore", invalid="ignore"):  # set when the data set is checked
            self.keypoints = np.where(self.visible[:, None] > 0, self.keypoints, 0).astype(np.float32)
        if self.others is None:
            self.others = np.zeros((0, len(self.visible), 3), np.float32)

    def joints_box(self, grow: float = 1.06) -> tuple[float, float, float, float]:
        """The bounds of the labelled joints, enlarged: with the padding of 1.25 they are 3/4 of the crop, as in LSP."""
        points = self.keypoints[self.visible > 0]
        low, high = points.min(0), points.max(0)
        with np.errstate(invalid="ignore", over="ignore"):
            half = np.maximum((high - low) * grow / 2, 1)
            return (*((low + high) / 2 - half).tolist(), *((low + high) / 2 + half).tolist())

    def drop(self, joints: np.ndarray) -> None:
        """Removes the labels of these joints, (K,) bool; a box derived from the joints is updated."""
        of_joints = self.box == self.joints_box()
        self.visible[joints], self.keypoints[joints] = 0, 0
        if of_joints and self.visible.any():
            self.box = self.joints_box()
