"""
Export and deploy
=================

A network with its flip test, decoding and transform to image coordinates is exported as one program: by
``torch.export`` for AOTInductor and C++, or as an ONNX file of standard operators for any runtime.
"""

# %%
# The module
# ----------
# Everything after the network is part of ``forward``.

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from skimage.data import astronaut

import pypose_ops
from pypose_ops import crop_patches, geometry, models, skeletons

system, _ = models.pretrained()  # MoveNet Lightning, included in the package
system.eval()


class Poses(torch.nn.Module):
    """Crops and their transforms to joints in image pixels."""

    def __init__(self, system):
        super().__init__()
        self.system = system

    def forward(self, crops, transform):
        maps = self.system.heatmaps(crops)[-1]
        mirrored = self.system.heatmaps(crops.flip(-1))[-1]
        return pypose_ops.decode_heatmaps(
            maps,
            flipped=mirrored,
            flip_pairs=skeletons.COCO.flip_pairs,
            flip_shift=True,
            transform=transform,
            refine="quarter",
        )


photograph = torch.from_numpy(astronaut()).permute(2, 0, 1)
boxes = torch.tensor([[0.0, 0.0, 511.0, 511.0], [60.0, 0.0, 460.0, 400.0]])  # two crops of one person
to_image = geometry.box_to_transform(
    *geometry.box_to_center_and_scale(boxes, system.input_size, padding=1.0), 0.0, system.input_size
)
crops = crop_patches(photograph, to_image, system.input_size, mean=system.mean, std=system.std, antialias=True)
height, width = system.heatmaps(crops[:1])[-1].shape[-2:]
strides = torch.tensor([system.input_size[1] / width, system.input_size[0] / height, 1.0])
transform = to_image * strides  # from heatmap pixels
module = Poses(system).eval()
with torch.no_grad():
    expected = module(crops, transform)

# %%
# torch.export
# ------------
# The batch size is dynamic: the example has 2 crops, and the dimension has a name.

batch = torch.export.Dim("batch", min=1, max=256)
program = torch.export.export(module, (crops, transform), dynamic_shapes=({0: batch}, {0: batch}))
one = program.module()(crops[:1], transform[:1])
torch.testing.assert_close(one[0], expected.coords[:1], atol=1e-3, rtol=0)
print("batch of 1:", one[0].shape)

folder = Path(tempfile.mkdtemp())
torch.export.save(program, folder / "poses.pt2")
print(f"poses.pt2 has {(folder / 'poses.pt2').stat().st_size / 1e6:.1f} MB")

# %%
# ``torch._inductor.aoti_compile_and_package`` then builds a package that a C++ program loads together with
# ``libpypose_ops.so``, without Python; see :doc:`/deployment`, also for ONNX.
#
# For the systems of this package, one command does all of this::
#
#     pypose-ops export WEIGHTS --format onnx --out poses.onnx --flip
#     pypose-ops predict IMAGE --model poses.onnx --out poses

# %%
# The same numbers
# ----------------

with torch.no_grad():
    again = program.module()(crops, transform)
difference = (again[0] - expected.coords).abs().max()
print(f"largest difference {difference:.2e} px")
assert difference < 1e-3

figure, axes = plt.subplots(figsize=(4, 4), layout="constrained")
axes.imshow(astronaut())
axes.plot(*expected.coords[0].T, "o", label="eager", markersize=8)
axes.plot(*again[0][0].detach().T, "x", label="exported")
axes.set(title="joints of the first crop", xlim=(0, 511), ylim=(511, 0))
axes.legend()
plt.show()
