"""The stages of DeepPose: regression of joints from whole images, and of displacements from crops around joints."""

from collections.abc import Sequence

import torch
from torch import nn

from pypose_ops import crop_patches, geometry
from pypose_ops._constants import constant

from .backbones import output_shape


class RegressionHead(nn.Module):
    """A backbone and a regression head: ``(N, 3, h, w)`` -> ``(N, outputs)``.

    Args:
        features (nn.Module): the backbone, with ``out_channels``.
        patch_size (tuple[int, int]): of the images.
        outputs (int): number of outputs.
        hidden (tuple[int, ...]): widths of the fully connected layers; empty: the map is averaged.
        dropout (float): after each of them.
    """

    def __init__(
        self,
        features: nn.Module,
        patch_size: tuple[int, int],
        outputs: int,
        *,
        hidden: Sequence[int] = (),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.features = features
        channels, height, width = output_shape(features, patch_size)
        layers, size = [], channels
        if hidden:
            layers, size = [nn.Flatten()], channels * height * width
        else:
            layers = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        for wide in hidden:
            linear = nn.Linear(size, wide)
            nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
            nn.init.zeros_(linear.bias)
            layers, size = layers + [linear, nn.ReLU(), nn.Dropout(dropout)], wide
        last = nn.Linear(size, outputs)
        # Initially every joint is in the middle of its box.
        nn.init.normal_(last.weight, std=1e-3)
        nn.init.zeros_(last.bias)
        self.head: nn.Sequential = nn.Sequential(*layers, last)

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(patches))


class PoseFromImage(nn.Module):
    """The first stage: the whole image, resampled to the input size of the network -> a pose."""

    net: nn.Module
    patch_size: tuple[int, int]

    def __init__(self, net: nn.Module, patch_size: tuple[int, int]) -> None:
        super().__init__()
        self.net, self.patch_size = net, patch_size

    def box(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Centre and scale of the whole image, ``(2,)`` each: b0."""
        height, width = images.shape[-2:]
        box = (((width - 1) / 2, (height - 1) / 2), (float(width), float(height)))
        return constant(box, device=images.device).unbind()

    def normalised(self, images: torch.Tensor) -> torch.Tensor:
        """``(B, K, 2)``, from -1/2 to 1/2 inside the image."""
        if tuple(images.shape[-2:]) != self.patch_size:
            center, scale = (t.expand(len(images), 2) for t in self.box(images))
            images = cut(images, center[:, None], scale[:, None], self.patch_size)
        return self.net(images).unflatten(1, (-1, 2))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return geometry.denormalize_from_box(self.normalised(images), *self.box(images))


class PoseRefine(nn.Module):
    """A later stage: each joint moves by the displacement predicted from its crop; pose, image -> pose.

    Args:
        net (nn.Module): crops ``(N, 3, h, w)`` -> ``(N, 2 K)``; the crop of joint i uses pair i.
        patch_size (tuple[int, int]): of the crops.
        torso (tuple[int, int]): left shoulder and right hip.
        sigma (float): side of the boxes, in diams.
        least (float): minimum diam, relative to the side of the image.
    """

    least: float
    net: nn.Module
    patch_size: tuple[int, int]
    sigma: float
    torso: tuple[int, int]

    def __init__(
        self, net: nn.Module, patch_size: tuple[int, int], torso: tuple[int, int], sigma: float, least: float
    ) -> None:
        super().__init__()
        self.net, self.patch_size, self.torso, self.sigma, self.least = net, patch_size, torso, sigma, least

    def diameters(self, pose: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """The diams ``(B,)`` of an estimate."""
        first, second = self.torso
        length = torch.linalg.vector_norm(pose[:, first] - pose[:, second], dim=-1)
        return length.clamp(min=self.least * max(images.shape[-2:]))

    def boxes(
        self, center: torch.Tensor, diameters: torch.Tensor, images: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """``center (B, M, 2)`` and diams ``(B, M)`` -> the centres and scales ``(B, M, 2)`` of the boxes."""
        side = self.sigma * diameters.clamp(min=self.least * max(images.shape[-2:]))
        return center, side[..., None].expand_as(center)

    def displacements(
        self, images: torch.Tensor, center: torch.Tensor, scale: torch.Tensor, joints: torch.Tensor
    ) -> torch.Tensor:
        """The predictions for joints ``(B, M)`` in their boxes: ``(B, M, 2)``, in units of the boxes."""
        said = self.net(cut(images, center, scale, self.patch_size)).unflatten(1, (-1, 2))
        said = said.unflatten(0, joints.shape)  # (B, M, K, 2)
        return said.gather(2, joints[..., None, None].expand(*joints.shape, 1, 2)).squeeze(2)

    def forward(self, pose: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        pose = pose.detach()
        joints = torch.arange(pose.shape[1], device=pose.device).expand(pose.shape[:2])
        center, scale = self.boxes(pose, self.diameters(pose, images)[:, None].expand(joints.shape), images)
        return geometry.denormalize_from_box(self.displacements(images, center, scale, joints), center, scale)


def cut(images: torch.Tensor, center: torch.Tensor, scale: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Boxes ``(B, M, 2)`` of images ``(B, 3, H, W)`` as patches ``(B M, 3, h, w)``, zeros outside of the image."""
    transforms = geometry.box_to_transform(center, scale, 0.0, size, align="center").flatten(0, 1)
    index = torch.arange(len(images), device=images.device).repeat_interleave(center.shape[1])
    return crop_patches(images, transforms, size, image_index=index, antialias=True)


def gather_joints(keypoints: torch.Tensor, joints: torch.Tensor) -> torch.Tensor:
    """``(B, K, 2)`` at joints ``(B, M)`` -> ``(B, M, 2)``."""
    return keypoints.gather(1, joints[..., None].expand(*joints.shape, 2))


def gaussian(points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean ``(2,)`` and Cholesky factor ``(2, 2)`` of the covariance of points ``(N, 2)``, without outliers.

    Outliers are more than three deviations from the median, with deviations estimated by the median absolute distance.
    In diams, people seen along the torso are far off: the plain deviation of LSPET's ankles is 2 diams, this one 0.5.
    """
    if len(points) < 2:
        return points.new_zeros(2), points.new_zeros(2, 2)
    distances = (points - points.median(0).values).abs()
    points = points[(distances <= 3 * 1.4826 * distances.median(0).values + 1e-3).all(1)]
    centred = points - points.mean(0)
    covariance = centred.T @ centred / (len(points) - 1)
    # All estimates may be off in one direction; the network must also work a little away from that line.
    return points.mean(0), torch.linalg.cholesky(covariance + 1e-6 * torch.eye(2).to(points))
