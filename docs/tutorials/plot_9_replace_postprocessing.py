"""
Replace the post-processing of MMPose or transformers
=====================================================

Other libraries decode on the CPU, person by person. Here one call on the device of the maps returns the same numbers:
``compat=`` names the library to reproduce, including its deviations; without it, results follow the definition.
"""

# %%
# Maps as predicted by a ViTPose
# ------------------------------

import time

import matplotlib.pyplot as plt
import numpy as np
import torch

import pypose_ops
from pypose_ops import codecs
from pypose_ops.integrations import transformers as for_transformers

torch.manual_seed(0)
keypoints = 8 + torch.rand(64, 17, 2) * torch.tensor([32.0, 48.0])
maps = pypose_ops.gaussian_heatmaps(keypoints, 2.0, (64, 48)) + 0.01 * torch.rand(64, 17, 64, 48)

# %%
# The usual loop
# --------------
# The highest pixel of every map, and a quarter of a pixel towards its higher neighbour, in NumPy.


def loop(maps):
    found = np.zeros((*maps.shape[:2], 2), np.float32)
    for person, of_person in enumerate(maps):
        for joint, heatmap in enumerate(of_person):
            y, x = np.unravel_index(heatmap.argmax(), heatmap.shape)
            found[person, joint] = x, y
            if 1 <= x < heatmap.shape[1] - 1 and 1 <= y < heatmap.shape[0] - 1:
                found[person, joint, 0] += 0.25 * np.sign(heatmap[y, x + 1] - heatmap[y, x - 1])
                found[person, joint, 1] += 0.25 * np.sign(heatmap[y + 1, x] - heatmap[y - 1, x])
    return found


begin = time.perf_counter()
slow = loop(maps.numpy())
middle = time.perf_counter()
fast, _ = pypose_ops.decode_heatmaps(maps, refine="quarter")
end = time.perf_counter()
print(f"loop {1e3 * (middle - begin):.1f} ms, one call {1e3 * (end - middle):.2f} ms")
assert np.abs(slow - fast.numpy()).max() < 1e-5

# %%
# MMPose
# ------
# The codecs have MMPose's names and arguments. A config only needs ``custom_imports`` of
# ``pypose_ops.integrations.mmpose`` and ``codec=dict(type="pypose_ops.MSRAHeatmap", ...)``; see :doc:`/integrations`.

codec = codecs.MSRAHeatmap(input_size=(192, 256), heatmap_size=(48, 64), sigma=2, unbiased=True)
targets, weights = codec.encode(keypoints * 4)
decoded, scores = codec.decode(targets)
print(f"largest error of encode and decode: {(decoded - keypoints * 4).abs().max():.3f} input pixels")

# %%
# transformers
# ------------
# ``fast_processor(processor)`` replaces the image processor of ViTPose or Sapiens2; its steps are also available as
# functions.

boxes = [[[20.0, 30.0, 150.0, 200.0]], [[10.0, 5.0, 90.0, 120.0], [200.0, 40.0, 100.0, 130.0]]]
flat, index = for_transformers.flat_boxes(boxes)
print(flat.shape, index.tolist())

figure, axes = plt.subplots(1, 2, figsize=(7, 3.5), layout="constrained")
axes[0].imshow(maps[0].amax(0))
axes[0].plot(fast[0, :, 0], fast[0, :, 1], "w.", markersize=5)
axes[0].set_title("17 maps, decoded")
axes[0].axis("off")
axes[1].bar(["loop", "one call"], [1e3 * (middle - begin), 1e3 * (end - middle)])
axes[1].set(ylabel="ms, 64 people", yscale="log")
plt.show()
