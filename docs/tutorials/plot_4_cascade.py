"""
Cascades: DeepPose by hand
==========================

A cascade refines its estimate: it crops a patch around each estimated joint and predicts the displacement to the true
joint. :func:`pypose_ops.crop_patches` crops all patches of a batch in one call, differentiably with respect to images
and transforms.
"""

# %%
# An image and an inaccurate estimate
# -----------------------------------

from importlib import resources

import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image
from skimage.data import astronaut

import pypose_ops
from pypose_ops import geometry, viz

with resources.as_file(resources.files("pypose_ops") / "data" / "astronaut_movenet.npz") as path:
    arrays = np.load(path)
    maps, to_image = torch.from_numpy(arrays["heat"]).float()[None], torch.from_numpy(arrays["hm2img"]).float()
truth, scores = pypose_ops.decode_heatmaps(maps, transform=to_image)
torch.manual_seed(1)
estimate = truth + 18 * torch.randn_like(truth)
image = Image.fromarray(astronaut())

# %%
# A patch around every joint
# --------------------------
# Each box is converted to a transform from patch pixels to image pixels; ``align`` defines how the two grids are
# aligned.

upper = range(11)
centers = estimate[0, list(upper)]
scale = torch.full_like(centers, 120.0)
transforms = geometry.box_to_transform(centers, scale, 0.0, (64, 64), align="center")
patches = pypose_ops.crop_patches(torch.from_numpy(astronaut()).permute(2, 0, 1), transforms, (64, 64), antialias=True)
print(patches.shape)

figure, axes = plt.subplots(2, 6, figsize=(9, 3.2), layout="constrained")
for panel in axes.flat:
    panel.axis("off")
for panel, patch, k in zip(axes.flat, patches, upper, strict=False):
    panel.imshow(patch.permute(1, 2, 0).clamp(0, 255).byte())
    inside = geometry.transform_points(truth[:, k], geometry.invert_transform(transforms[k])[None])[0]
    panel.plot(31.5, 31.5, "w+", markersize=10)
    panel.plot(*inside, "o", color="#ff8c1a", markersize=5)

# %%
# Refinement
# ----------
# A trained stage would predict the displacement from the white cross (the estimate) to the orange dot. Here it comes
# from the heatmaps, cropped by the same transforms: each patch is decoded, and the result is mapped back to the image.

per_joint = torch.stack([geometry.compose_transforms(geometry.invert_transform(to_image), t) for t in transforms])
of_maps = pypose_ops.crop_patches(maps[0, list(upper), None], per_joint, (64, 64), image_index=torch.arange(11))
found, _ = pypose_ops.decode_heatmaps(of_maps, transform=transforms, refine="dark_udp", kernel_size=None)
refined = estimate.clone()
refined[0, list(upper)] = found[:, 0]

before = (estimate - truth)[0, list(upper)].norm(dim=-1).mean()
after = (refined - truth)[0, list(upper)].norm(dim=-1).nanmean()
print(f"mean error {before:.1f} px before, {after:.1f} px after the second look")
assert after < before / 2

figure, axes = plt.subplots(1, 2, figsize=(8, 4), layout="constrained")
for panel, coords, title in ((axes[0], estimate, "first estimate"), (axes[1], refined, "after the second look")):
    panel.imshow(viz.draw_pose(image, coords[0], scores[0]))
    panel.set_title(title)
    panel.axis("off")
plt.show()
