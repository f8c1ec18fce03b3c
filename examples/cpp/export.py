#!/usr/bin/env python3
"""Writes what the C++ program runs: network, flip test, decode_heatmaps and affine, compiled by AOTInductor.

    python examples/cpp/export.py --out pose.pt2
    python examples/cpp/export.py --out pose.pt2 --image photograph.jpg --box 10 20 200 400 --crop crop.bin

With --image also the crop of a box, as the raw float32 that the program reads, and its affine, which it is given.
"""

import argparse
from pathlib import Path

import torch

from pypose_ops import crop_patches, geometry, models, skeletons


class Poser(torch.nn.Module):
    """Normalised crops ``(B, 3, H, W)`` and transforms ``(B, 2, 3)`` to joints in the image and their scores."""

    def __init__(self, system, flip_pairs):
        super().__init__()
        self.system = system
        self.flip_pairs = list(flip_pairs)

    def forward(self, crops, to_image):
        maps = self.system.heatmaps(crops)[-1]
        mirrored = self.system.heatmaps(crops.flip(-1))[-1]
        coords, scores = self.system.decode(
            crops, maps, flipped=mirrored, flip_pairs=self.flip_pairs, flip_shift=self.system.flip_shift
        )
        return geometry.transform_points(coords, to_image), scores


def export(poser, path, device="cpu"):
    """Compiles for one crop at a time; the package holds the weights, and calls the operators of libpypose_ops."""
    poser = poser.eval().to(device)
    sample = torch.zeros(1, 3, *poser.system.input_size, device=device), torch.eye(2, 3, device=device)[None]
    with torch.no_grad():
        program = torch.export.export(poser, sample)
        return torch._inductor.aoti_compile_and_package(program, package_path=str(path))


def cut(system, image, box):
    """The crop of a box ``(x1, y1, x2, y2)`` of an image ``(H, W, 3)`` uint8, and where its pixels are in the image."""
    center, scale = geometry.box_to_center_and_scale(torch.tensor([box], dtype=torch.float32), system.input_size)
    to_image = geometry.box_to_transform(center, scale, 0.0, system.input_size, align="center")
    mean, std = tuple(system.mean), tuple(system.std)
    image = torch.as_tensor(image).permute(2, 0, 1)[None]
    return crop_patches(image, to_image, system.input_size, mean=mean, std=std, antialias=True), to_image


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the package, .pt2")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    parser.add_argument("--image", type=Path, help="an image with a person in it")
    parser.add_argument(
        "--box", type=float, nargs=4, metavar=("X1", "Y1", "X2", "Y2"), help="(default: the whole image)"
    )
    parser.add_argument("--crop", type=Path, default=Path("crop.bin"), help="(default: %(default)s)")
    options = parser.parse_args()
    system, info = models.pretrained()
    poser = Poser(system, skeletons.SKELETONS[info["skeleton"]].flip_pairs)
    print(export(poser, options.out, options.device))
    if options.image:
        import numpy
        from PIL import Image

        image = numpy.array(Image.open(options.image).convert("RGB"))
        height, width = image.shape[:2]
        crop, to_image = cut(system, image, options.box or [0, 0, width - 1, height - 1])
        crop.numpy().tofile(options.crop)
        print(f"./pose {options.out} {options.crop} {' '.join(map(str, crop.shape[2:]))}", *to_image.flatten().tolist())


if __name__ == "__main__":
    main()
