"""ViTPose and Sapiens2 of Hugging Face transformers: crops, decoding, targets and loss in one call each.

    from pypose_ops.integrations.transformers import fast_processor

    processor = fast_processor(AutoProcessor.from_pretrained("usyd-community/vitpose-base-simple"))
    inputs = processor(image, boxes=[boxes], return_tensors="pt")
    poses = processor.post_process_pose_estimation(model(**inputs), boxes=[boxes])

Everything stays on the device of its tensors. Only :func:`fast_processor` needs transformers.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch

from .. import codecs, geometry
from ..ops.crop_patches import crop_patches
from ..ops.decode_heatmaps import decode_heatmaps
from ._peer import require

VERSIONS = ("5",)
Boxes = Sequence[Sequence[Sequence[float]]]  # per image, per person, (left, top, width, height)


def flat_boxes(boxes: Boxes, device: torch.device | str | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes of all people ``(N, 4)``, left, top, width and height, and the index of their image ``(N,)``."""
    index = [i for i, of_image in enumerate(boxes) for _ in of_image]
    return _rows_of(boxes, device), torch.tensor(index, dtype=torch.long, device=device)


def _rows_of(boxes: Boxes, device: torch.device | str | None = None) -> torch.Tensor:
    numbers = (float(v) for of_image in boxes for box in of_image for v in box[:4])
    # numpy reads lists in a third of the time that torch takes.
    return torch.from_numpy(np.fromiter(numbers, np.float32)).reshape(-1, 4).to(device or "cpu")


def crop_transforms(boxes: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """``(N, 2, 3)``, pixels of crops of ``size (height, width)`` to image pixels, of boxes ``(N, 4)``: UDP's grid."""
    center, scale = geometry.box_to_center_and_scale(boxes, size, format="xywh")
    return geometry.box_to_transform(center, scale, 0.0, size, align="corners")


def crop_keypoints(keypoints: torch.Tensor, boxes: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Keypoints ``(N, K, 2)`` in image pixels to pixels of the crops of ``size (height, width)`` around the boxes.

    Raises:
        ValueError: not as many people as boxes.
    """
    if keypoints.dim() != 3 or boxes.shape != (len(keypoints), 4):
        raise ValueError(
            f"keypoints must be (N, K, 2) and boxes (N, 4), got {tuple(keypoints.shape)} and {tuple(boxes.shape)}"
        )
    dtype = torch.promote_types(keypoints.dtype, torch.float32)
    to_crop = geometry.invert_transform(crop_transforms(boxes.to(dtype), size))
    return geometry.transform_points(keypoints.to(dtype), to_crop)


def pose_targets(
    keypoints: torch.Tensor,
    boxes: torch.Tensor,
    size: tuple[int, int],
    visible: torch.Tensor | None = None,
    *,
    downscale_factor: int = 4,
    sigma: float = 2.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The maps that ViTPose (sigma 2) and Sapiens2 (sigma 6) are trained on.

    Args:
        keypoints: ``(N, K, 2)``, in image pixels.
        boxes: ``(N, 4)``, left, top, width and height, in image pixels.
        size: ``(height, width)`` of the net's input.
        visible: ``(N, K)``.
        downscale_factor: input pixels per heatmap pixel.
        sigma: in heatmap pixels.

    Returns:
        Maps ``(N, K, height / factor, width / factor)`` and weights ``(N, K)``. Blobs end at a window of three sigmas
        around the nearest pixel, as in Sapiens2's processor and in MMPose.
    """
    codec = _codec(size, downscale_factor, sigma, "mmpose")
    return codec.encode(crop_keypoints(keypoints, boxes, size), visible)


def pose_loss(
    heatmaps: torch.Tensor,
    keypoints: torch.Tensor,
    boxes: torch.Tensor,
    size: tuple[int, int],
    visible: torch.Tensor | None = None,
    *,
    sigma: float = 2.0,
) -> torch.Tensor:
    """Weighted MSE of predicted maps ``(N, K, h, w)`` against the targets of those keypoints, without drawing them."""
    codec = _codec(size, size[0] // heatmaps.shape[-2], sigma, None)
    return codec.loss(heatmaps, crop_keypoints(keypoints, boxes, size), visible)


def _codec(size: tuple[int, int], factor: int, sigma: float, compat: str | None) -> codecs.UDPHeatmap:
    height, width = size
    grid = (width // factor, height // factor)
    return codecs.UDPHeatmap((width, height), grid, sigma=sigma, compat=compat)


def post_process_pose_estimation(
    heatmaps: torch.Tensor,
    boxes: Boxes,
    size: tuple[int, int],
    *,
    kernel_size: int = 11,
    threshold: float | None = None,
    heatmaps_flipped: torch.Tensor | None = None,
    flip_pairs: Sequence[tuple[int, int]] | None = None,
    scales: torch.Tensor | None = None,
    compat: Literal["hf", "mmpose"] = "hf",
) -> list[list[dict[str, torch.Tensor]]]:
    """Maps to poses in image pixels.

    Args:
        heatmaps: ``(N, K, h, w)``, of all people.
        boxes: per image, per person: left, top, width and height, in image pixels.
        size: ``(height, width)`` of the net's input.
        kernel_size: of the blur before the refinement.
        threshold: joints that do not score more are dropped.
        heatmaps_flipped: the maps of mirrored crops, as predicted, averaged with the others.
        flip_pairs: the joints to swap in them; required with ``heatmaps_flipped``.
        scales: ``(N, 2)``, factors for x and y of the results.
        compat: ``"hf"``, ViTPose's processor, or ``"mmpose"``, which Sapiens2's follows.

    Returns:
        Per image, per person: ``keypoints (K, 2)``, NaN where a map has no peak, ``scores (K,)``, ``labels (K,)`` and
        ``bbox (4,)``, two corners. On the device of the maps; without ``threshold`` there is no synchronisation.

    Raises:
        ValueError: not as many maps as boxes, or maps that :func:`pypose_ops.decode_heatmaps` refuses.
    """
    rows = _rows_of(boxes, heatmaps.device)
    if len(rows) != len(heatmaps):
        raise ValueError(f"heatmaps must be of {len(rows)} people, one per box, got {len(heatmaps)}")
    center, scale = geometry.box_to_center_and_scale(rows, size, format="xywh")
    to_image = geometry.box_to_transform(center, scale, 0.0, heatmaps.shape[-2:], align="corners")
    coords, scores = decode_heatmaps(
        heatmaps.detach(), refine="dark_udp", kernel_size=kernel_size, compat=compat, transform=to_image,
        flipped=heatmaps_flipped, flip_pairs=flip_pairs,
    )  # fmt: skip
    corners = rows.clone()
    corners[:, 2:] += rows[:, :2]
    if scales is not None:
        coords, corners = coords * scales[:, None], corners * scales.repeat(1, 2)
    labels = torch.arange(heatmaps.shape[1], device=heatmaps.device)
    people = zip(coords.unbind(), scores.unbind(), corners.unbind(), strict=True)
    return [[_pose(*next(people), labels, threshold) for _ in of_image] for of_image in boxes]


def _pose(
    coords: torch.Tensor, scores: torch.Tensor, bbox: torch.Tensor, labels: torch.Tensor, threshold: float | None
) -> dict[str, torch.Tensor]:
    if threshold is not None:
        keep = scores > threshold
        coords, scores, labels = coords[keep], scores[keep], labels[keep]
    return {"keypoints": coords, "scores": scores, "labels": labels, "bbox": bbox}


def fast_processor(processor: Any) -> Any:
    """An image processor of ViTPose or Sapiens2 whose crops and post-processing are those of pypose_ops.

    Returns an instance of a subclass with the settings of ``processor``, which is used and saved in the same way.
    ``bbox`` holds the corners of the person's box, whereas ViTPose's processor mixes its centre and scale;
    ``target_sizes`` are ``(height, width)`` as documented, whereas it reads (width, height). Sapiens2's crops are
    bilinear, or bicubic where they enlarge the image.

    Raises:
        TypeError: another processor.
        ImportError: transformers is missing or of another version.
    """
    require("transformers", "transformers", VERSIONS)
    kinds: dict[str, type] = {
        "VitPoseImageProcessor": _ViTPose, "VitPoseImageProcessorPil": _ViTPose, "Sapiens2ImageProcessor": _Sapiens2
    }  # fmt: skip
    names = [cls.__name__ for cls in type(processor).__mro__]
    kind = next((kinds[name] for name in names if name in kinds), None)
    if kind is None:
        raise TypeError(f"fast_processor: expected an image processor of ViTPose or Sapiens2, got {names[0]}")
    if isinstance(processor, kind):
        return processor
    peer: Any = type(processor)
    # Its module is that of the processor, where transformers looks for what belongs to it.
    cls: Any = type(peer.__name__, (kind, peer), {"__doc__": peer.__doc__, "__module__": peer.__module__})
    fast = cls.__new__(cls)
    fast.__dict__.update(processor.__dict__)
    return fast


class _Fast:
    """Shared by the two processors."""

    size: Any
    compat: Literal["hf", "mmpose"]

    def __reduce__(self) -> tuple[Any, ...]:  # the class is made by fast_processor()
        peer: Any = type(self).__mro__[1 + type(self).__mro__.index(_Fast)]
        plain = peer.__new__(peer)
        plain.__dict__.update(self.__dict__)
        return fast_processor, (plain,)

    @property
    def _input_size(self) -> tuple[int, int]:
        return self.size["height"], self.size["width"]

    @staticmethod
    def _crops(
        images: Sequence[Any], boxes: Boxes, size: tuple[int, int], cubic: torch.Tensor | None = None, **options: Any
    ) -> torch.Tensor:
        """Crops ``(N, C, height, width)``; ``cubic (N,)``: which of them are bicubic, on the CPU."""
        if len(boxes) > len(images):
            raise ValueError(f"boxes must be of {len(images)} images, got {len(boxes)} lists")
        tensors = [image if isinstance(image, torch.Tensor) else torch.as_tensor(image) for image in images]
        colours = len(options.get("mean", ()))  # grey images get as many
        tensors = [t.expand(colours, -1, -1) if t.shape[0] == 1 and colours else t for t in tensors]
        options = {"dtype": torch.float32, **options}
        rows, index = flat_boxes(boxes)
        transforms, index = (t.to(tensors[0].device) for t in (crop_transforms(rows, size), index))
        if cubic is None or not bool(cubic.any()):
            return crop_patches(tensors, transforms, size, image_index=index, **options)
        if bool(cubic.all()):
            return crop_patches(tensors, transforms, size, image_index=index, mode="bicubic", **options)
        patches = torch.empty(len(rows), tensors[0].shape[0], *size, device=transforms.device)
        for mode, chosen in (("bilinear", ~cubic), ("bicubic", cubic)):
            some = chosen.nonzero()[:, 0].to(transforms.device)
            patches[some] = crop_patches(tensors, transforms[some], size, image_index=index[some], mode=mode, **options)
        return patches


class _ViTPose(_Fast):
    compat: Literal["hf", "mmpose"] = "hf"

    def _preprocess(self, images: Any, **kwargs: Any) -> Any:
        boxes, size = kwargs.get("boxes"), kwargs["size"]
        if boxes is None or not kwargs.get("do_affine_transform", True):
            return super()._preprocess(images, **kwargs)  # type: ignore[misc]
        from transformers.image_processing_utils import BatchFeature

        # crop_patches subtracts the mean in image units, the processor after rescaling.
        unit = 1 / kwargs["rescale_factor"] if kwargs["do_rescale"] else 1.0
        normalization: dict[str, Any] = {"std": unit}
        if kwargs["do_normalize"]:
            mean, std = kwargs["image_mean"], kwargs["image_std"]
            normalization = {"mean": [m * unit for m in mean], "std": [s * unit for s in std]}
        patches = self._crops(images, boxes, (size.height, size.width), **normalization)
        kind = kwargs.get("return_tensors")
        pixels: Any = patches
        if kind != "pt":
            pixels = [p if "Pil" not in type(self).__name__ else p.numpy() for p in patches]
        return BatchFeature(data={"pixel_values": pixels}, tensor_type=kind)

    def post_process_pose_estimation(
        self,
        outputs: Any,
        boxes: Boxes,
        kernel_size: int = 11,
        threshold: float | None = None,
        target_sizes: Any = None,
        outputs_flipped: Any = None,
        flip_pairs: Sequence[tuple[int, int]] | None = None,
    ) -> list[list[dict[str, torch.Tensor]]]:
        """:func:`post_process_pose_estimation`; with ``target_sizes`` the boxes are in units of those sizes."""
        if target_sizes is not None:
            if len(target_sizes) != sum(len(of_image) for of_image in boxes):
                raise ValueError("Make sure that you pass in as many target sizes as the batch dimension of the logits")
            sizes = iter([(float(h), float(w)) for h, w in target_sizes])
            boxes = [[_in_pixels(box, *next(sizes)) for box in of_image] for of_image in boxes]
        return post_process_pose_estimation(
            outputs.heatmaps, boxes, self._input_size, kernel_size=kernel_size, threshold=threshold,
            heatmaps_flipped=None if outputs_flipped is None else outputs_flipped.heatmaps, flip_pairs=flip_pairs,
        )  # fmt: skip


def _in_pixels(box: Sequence[float], height: float, width: float) -> list[float]:
    return [box[0] * width, box[1] * height, box[2] * width, box[3] * height]


class _Sapiens2(_Fast):
    compat: Literal["hf", "mmpose"] = "mmpose"

    def _preprocess(self, images: Any, **kwargs: Any) -> Any:
        boxes, size = kwargs.get("boxes"), kwargs["size"]
        other = boxes is None or kwargs.get("do_reduce_labels") or kwargs.get("do_center_crop")
        if other or not kwargs["do_rescale"] or not kwargs["do_normalize"]:
            return super()._preprocess(images, **kwargs)  # type: ignore[misc]
        height, width = size["height"], size["width"]
        rows = _rows_of(boxes)
        _, extent = geometry.box_to_center_and_scale(rows, (height, width), format="xywh")
        enlarged = ((width - 1) / extent[:, 0]).minimum((height - 1) / extent[:, 1]).ge(1)
        unit = 1 / kwargs["rescale_factor"]
        mean, std = ([v * unit for v in kwargs[name]] for name in ("image_mean", "image_std"))
        crops = self._crops(images, boxes, (height, width), enlarged, mean=mean, std=std)
        return list(crops) if len(crops) else crops  # a list of none has no shape

    def post_process_pose_estimation(
        self,
        outputs: Any,
        boxes: Boxes,
        outputs_flipped: Any = None,
        kernel_size: int = 11,
        threshold: float | None = None,
        source_sizes: Any = None,
        target_sizes: Any = None,
    ) -> list[list[dict[str, torch.Tensor]]]:
        """:func:`post_process_pose_estimation`; ``outputs_flipped`` are maps that were mirrored back already."""
        heatmaps = outputs.heatmaps
        if outputs_flipped is not None:
            heatmaps = (heatmaps + outputs_flipped.heatmaps) / 2
        if target_sizes is not None and source_sizes is None:
            raise ValueError("`source_sizes` must be provided when `target_sizes` is specified.")
        for name, sizes in (("source", source_sizes), ("target", target_sizes)):
            if sizes is not None and len(sizes) != len(boxes):
                raise ValueError(f"Make sure that you pass in as many {name} sizes as the number of images.")
        if len(heatmaps) == 0:
            return [[] for _ in boxes]
        scales = None
        if target_sizes is not None:
            source, target = (torch.as_tensor(s, dtype=torch.float32).flip(-1) for s in (source_sizes, target_sizes))
            _, index = flat_boxes(boxes)
            scales = (target / source)[index].to(heatmaps.device)
        return post_process_pose_estimation(
            heatmaps, boxes, self._input_size, kernel_size=kernel_size, threshold=threshold, scales=scales,
            compat=self.compat,
        )  # fmt: skip
