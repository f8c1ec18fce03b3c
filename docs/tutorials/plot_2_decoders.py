"""
Decoding heatmaps: what each refinement does
============================================

The highest pixel of a heatmap is up to half a pixel off in each direction, and a heatmap pixel covers four image pixels
or more. Refinements estimate the subpixel position from the pixels around it.
"""

# %%
# A joint between pixels
# ----------------------

import matplotlib.pyplot as plt
import torch

import pypose_ops

truth = torch.tensor([[[20.35, 15.7]]])
heatmap = pypose_ops.gaussian_heatmaps(truth, 2.0, (32, 40))
REFINES = (None, "quarter", "parabola", "centroid", "dark", "dark_udp")

figure, axes = plt.subplots(figsize=(5, 4), layout="constrained")
axes.imshow(heatmap[0, 0], cmap="gray")
axes.plot(*truth[0, 0], "w+", markersize=16, label="truth")
for refine in REFINES:
    coords, _ = pypose_ops.decode_heatmaps(heatmap, refine=refine)
    axes.plot(*coords[0, 0], "o", markersize=5, label=str(refine))
axes.set(xlim=(18, 23), ylim=(18, 13))
axes.legend(fontsize=8)

# %%
# Many joints, clean and noisy
# ----------------------------
# DARK fits a Gaussian, so it is exact on clean ones. Noise changes that.

torch.manual_seed(0)
truth = 8 + torch.rand(200, 1, 2) * torch.tensor([24.0, 16.0])
maps = pypose_ops.gaussian_heatmaps(truth, 2.0, (32, 40))
noisy = maps + 0.05 * torch.randn_like(maps)

errors = {}
for refine in REFINES:
    errors[str(refine)] = [
        (pypose_ops.decode_heatmaps(m, refine=refine, sigma=2.0 if "dark" in str(refine) else None).coords - truth)
        .norm(dim=-1)
        .mean()
        .item()
        for m in (maps, noisy)
    ]
    print(f"{str(refine):9} clean {errors[str(refine)][0]:.3f} px   noisy {errors[str(refine)][1]:.3f} px")
assert errors["dark"][0] < 0.02 < errors["None"][0]

figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
place = torch.arange(len(errors))
axes.bar(place - 0.2, [e[0] for e in errors.values()], 0.4, label="clean")
axes.bar(place + 0.2, [e[1] for e in errors.values()], 0.4, label="with noise")
axes.set_xticks(place, errors)
axes.set_ylabel("mean error, heatmap pixels")
axes.legend()

# %%
# Image coordinates and flip test
# -------------------------------
# ``transform`` maps the coordinates to the image. ``flipped`` holds the maps of the mirrored crop: they are mirrored
# back, left and right are swapped according to ``flip_pairs``, and both are averaged in the same pass.

pair = pypose_ops.gaussian_heatmaps(torch.tensor([[[10.2, 12.0], [30.0, 12.5]]]), 2.0, (32, 40))
mirrored = pair.flip(-1)[:, [1, 0]]
to_image = torch.tensor([[4.0, 0.0, 100.0], [0.0, 4.0, 50.0]])
coords, scores = pypose_ops.decode_heatmaps(pair, flipped=mirrored, flip_pairs=[(0, 1)], transform=to_image)
print(coords)

# %%
# Maps without a peak
# -------------------
# They decode to NaN with a score of 0, and NaN keypoints draw nothing, so missing joints never become wrong ones.

coords, scores = pypose_ops.decode_heatmaps(torch.zeros(1, 1, 32, 40))
print(coords, scores)
plt.show()
