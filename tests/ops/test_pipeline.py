"""A net's output to image coordinates as one graph: merge of the flip test, decoding, affine. No crop, any batch.

``torch.compile`` without graph breaks, ``torch.export`` with a dynamic batch, AOTInductor, and capture as a CUDA graph.
"""

import pytest
import torch
from contract_tools import captured_graph, only_on

from pypose_ops import decode_heatmaps, find_peaks, geometry, soft_argmax
from pypose_ops.skeletons import COCO

SIZE, INPUT = (32, 24), (128, 96)  # (height, width)


class Net(torch.nn.Module):
    """Stands for a pose net: images to one map per joint, four times smaller."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 5, stride=4, padding=2), torch.nn.ReLU(), torch.nn.Conv2d(8, len(COCO), 3, padding=1)
        )

    def forward(self, images):
        return self.layers(images)


class Decoded(Net):
    """The whole way: both passes of the flip test, their merge, DARK, and the boxes' affines."""

    def forward(self, images, transform):
        maps, flipped = self.layers(images), self.layers(images.flip(-1))
        return tuple(decode_heatmaps(maps, flipped=flipped, flip_pairs=COCO.flip_pairs, transform=transform))


class Crowd(Net):
    """Several people in an image, and coordinates with gradients."""

    def forward(self, images, transform):
        maps = self.layers(images)
        return (*find_peaks(maps, refine="dark", max_peaks=5, transform=transform), soft_argmax(maps, window=5))


def inputs(batch, device="cpu"):
    """Images, and where each one's maps lie in the image that it was cut from."""
    center = 100 + 50 * torch.rand(batch, 2, device=device)
    scale = 80 + 40 * torch.rand(batch, 1, device=device) * torch.ones(2, device=device)
    to_image = geometry.box_to_transform(center, scale, 10 * torch.rand(batch, device=device), SIZE)
    return torch.randn(batch, 3, *INPUT, device=device), to_image


def same(actual, expected):
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-4, atol=2e-3)


@pytest.fixture(params=(Decoded, Crowd), ids=("decode_heatmaps", "find_peaks"))
def net(request):
    return request.param().eval()


def step_by_step(net, images, transform):
    """What ``Decoded`` does, by torch on the maps."""
    maps, flipped = net.layers(images), net.layers(images.flip(-1))
    merged = 0.5 * (maps + flipped.flip(-1)[:, list(COCO.flip_index)])
    coords, scores = decode_heatmaps(merged)
    return coords @ transform[:, :, :2].mT + transform[:, None, :, 2], scores


@torch.no_grad()
def test_one_call_is_every_step():
    net, arguments = Decoded().eval(), inputs(3)
    coords, scores = net(*arguments)
    expected, expected_scores = step_by_step(net, *arguments)
    found = expected_scores > 0
    assert found.float().mean() > 0.9
    same((coords[found], scores), (expected[found], expected_scores))


@only_on("cpu", "cuda")
@torch.no_grad()
@pytest.mark.parametrize("backend", ("aot_eager", "inductor"))
def test_compile_for_any_batch(device, net, backend):
    torch._dynamo.reset()
    net = net.to(device)
    compiled = torch.compile(net, fullgraph=True, dynamic=True, backend=backend)
    graphs = None
    for batch in (5, 4, 7):  # not 2 or 3: torch would take the batch for a side of the affine
        arguments = inputs(batch, device)
        same(compiled(*arguments), net(*arguments))
        counted = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        assert graphs in (None, counted), "another batch compiled another graph"
        graphs = counted


@only_on("cpu", "cuda")
@torch.no_grad()
def test_export_for_any_batch(device, net):
    net, batch = net.to(device), torch.export.Dim("batch", min=1, max=64)
    exported = torch.export.export(net, inputs(2, device), dynamic_shapes=({0: batch}, {0: batch}))
    names = {str(node.target) for node in exported.graph.nodes if node.op == "call_function"}
    assert any(name.startswith("pypose_ops.") for name in names)
    for size in (2, 1, 5):
        arguments = inputs(size, device)
        same(exported.module()(*arguments), net(*arguments))


@torch.no_grad()
def test_a_saved_export_loads(tmp_path):
    net, batch = Decoded().eval(), torch.export.Dim("batch", min=1, max=64)
    exported = torch.export.export(net, inputs(2), dynamic_shapes=({0: batch}, {0: batch}))
    torch.export.save(exported, tmp_path / "net.pt2")
    arguments = inputs(3)
    same(torch.export.load(tmp_path / "net.pt2").module()(*arguments), net(*arguments))


@torch.no_grad()
def test_aot_inductor_for_any_batch(tmp_path, net):
    """A package without Python; another batch than the one it was compiled with."""
    batch = torch.export.Dim("batch", min=1, max=64)
    exported = torch.export.export(net, inputs(2), dynamic_shapes=({0: batch}, {0: batch}))
    package = torch._inductor.aoti_compile_and_package(exported, package_path=str(tmp_path / "net.pt2"))
    loaded = torch._inductor.aoti_load_package(package)
    for size in (2, 5):
        arguments = inputs(size)
        same(loaded(*arguments), net(*arguments))


@only_on("cuda")
@torch.no_grad()
def test_capture_as_a_cuda_graph(device, net):
    net = net.to(device)
    static = inputs(4, device)
    graph, captured = captured_graph(lambda: net(*static))
    for _ in range(2):
        arguments = inputs(4, device)
        for old, new in zip(static, arguments, strict=True):
            old.copy_(new)
        graph.replay()
        same(captured, net(*arguments))
