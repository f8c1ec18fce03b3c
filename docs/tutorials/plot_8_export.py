"""
Export and deploy
=================

A network with its flip test, its decoding and the way back to the image becomes one program: by ``torch.export`` for
AOTInductor and C++, or as an ONNX file of standard operators for any runtime.
"""

# %%
# The module
# ----------
# Whatever runs behind the network is part of ``forward``.

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch

import pypose_ops
from pypose_ops import models, skeletons

torch.manual_seed(0)
system = models.build("stacked_hourglass", num_joints=17, preset="compact", stacks=1).eval()


class Poses(torch.nn.Module):
    """Crops and their transforms to joints in image pixels."""

    def __init__(self, system):
        super().__init__()
        self.system = system

    def forward(self, crops, transform):
        maps = self.system(crops)[-1]
        mirrored = self.system(crops.flip(-1))[-1]
        return pypose_ops.decode_heatmaps(
            maps,
            flipped=mirrored,
            flip_pairs=skeletons.COCO.flip_pairs,
            flip_shift=True,
            transform=transform,
            refine="quarter",
        )


crops = torch.randn(2, 3, *system.input_size)
transform = torch.tensor([[4.0, 0.0, 10.0], [0.0, 4.0, 20.0]]).expand(2, 2, 3).contiguous()
module = Poses(system).eval()
with torch.no_grad():
    expected = module(crops, transform)

# %%
# torch.export
# ------------
# The batch is dynamic: an example of 2, and a dimension with a name.

batch = torch.export.Dim("batch", min=1, max=256)
program = torch.export.export(module, (crops, transform), dynamic_shapes=({0: batch}, {0: batch}))
one = program.module()(crops[:1], transform[:1])
torch.testing.assert_close(one[0], expected.coords[:1], atol=1e-3, rtol=0)
print("batch of 1:", one[0].shape)

folder = Path(tempfile.mkdtemp())
torch.export.save(program, folder / "poses.pt2")
print(f"poses.pt2 has {(folder / 'poses.pt2').stat().st_size / 1e6:.1f} MB")

# %%
# From there ``torch._inductor.aoti_compile_and_package`` makes a package that a C++ program loads beside
# ``libpypose_ops.so``, without Python; :doc:`/deployment` shows it, and the ONNX file.
#
# One command does all of it for the systems of this package::
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

figure, axes = plt.subplots(figsize=(4, 3), layout="constrained")
axes.plot(*expected.coords[0].T, "o", label="eager", markersize=8)
axes.plot(*again[0][0].detach().T, "x", label="exported")
axes.set(title="joints of an untrained network", xlabel="x", ylabel="y")
axes.legend()
plt.show()
