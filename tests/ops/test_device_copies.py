"""Training and prediction copy no constants from the host: ``meta`` counts them, ``cuda`` captures a graph.

Codecs and systems may fill what they keep on the device in the first call.
"""

import copy

import pytest
import torch
from device_copies import DeviceCopies, assert_no_copies

from pypose_ops import codecs, geometry, skeletons

META = torch.device("meta")
JOINTS = len(skeletons.LSP)
PAIRS = skeletons.LSP.flip_pairs
INPUT, GRID, SIZE = (192, 256), (48, 64), (64, 48)


# The counter finds copies ---------------------------------------------------------------------------------------------

COPIES = {
    "tensor": lambda x: torch.tensor([1.0, 2.0], device=META),
    "as_tensor": lambda x: torch.as_tensor(2.0, device=META),
    "new_tensor": lambda x: x.new_tensor([1.0]),
    "to": lambda x: torch.zeros(2).to(META),
    "copy": lambda x: x.copy_(torch.zeros(4)),
    "list": lambda x: x[[0, 1]],
    "list in a tuple": lambda x: x[..., [0, 1]],
    "host index": lambda x: x[torch.tensor([0, 1])],
    "assigned by a list": lambda x: x.__setitem__([0, 1], 2.0),
}
FREE = {
    "arithmetic": lambda x: x * 2.0 + 1,
    "where": lambda x: torch.where(x > 0, x, 2.0),
    "full": lambda x: torch.full((3,), 2.0, device=META),
    "arange": lambda x: torch.arange(3, device=META),
    "slices": lambda x: x[..., 1:, None],
    "assigned": lambda x: x.__setitem__(0, 3.0),
}


@pytest.mark.parametrize("name", COPIES)
def test_copies_are_counted(name):
    x = torch.rand(4, device=META)
    with DeviceCopies() as copies:
        COPIES[name](x)
    assert len(copies.found) == 1 and "test_device_copies.py" in copies.found[0]


@pytest.mark.parametrize("name", FREE)
def test_what_needs_no_copy_is_not_counted(name):
    x = torch.rand(4, device=META)
    with DeviceCopies() as copies:
        FREE[name](x)
    assert not copies.found


def test_reading_back_raises():
    for call in (float, bool, lambda x: x.tolist(), lambda x: x.cpu().numpy()):
        with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
            call(torch.rand(1, device=META))


# Geometry -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("align", geometry.ALIGNS)
@pytest.mark.parametrize("flip", (False, True, "each"))
@pytest.mark.parametrize("rotation", (30.0, "each"))
def test_box_to_transform(where, align, flip, rotation):
    boxes, angles, flags = (
        torch.rand(3, 4, device=where),
        torch.rand(3, device=where),
        torch.ones(3, dtype=torch.bool, device=where),
    )

    def call():
        center, scale = geometry.box_to_center_and_scale(boxes, SIZE)
        turn = angles if rotation == "each" else rotation
        geometry.box_to_transform(center, scale, turn, SIZE, align=align, flip=flags if flip == "each" else flip)

    assert_no_copies(where, call)


def test_the_rest_of_geometry(where):
    keypoints, transforms = torch.rand(3, JOINTS, 2, device=where), torch.rand(3, 2, 3, device=where)
    visible = torch.rand(3, JOINTS, device=where)

    def call():
        geometry.compose_transforms(transforms, geometry.invert_transform(transforms))
        geometry.transform_points(keypoints, transforms)
        boxes = geometry.joint_boxes(keypoints, skeletons.LSP.torso)
        geometry.denormalize_from_box(geometry.normalize_to_box(keypoints, *boxes), *boxes)
        for align in geometry.ALIGNS:
            geometry.scale_coordinates(keypoints, (256, 190), SIZE, align=align)
        geometry.flip_keypoints(keypoints, 10, PAIRS, visible=visible)
        geometry.flip_heatmaps(torch.rand(2, JOINTS, 8, 8, device=where), PAIRS, shift=True)
        geometry.flip_heatmaps(torch.rand(2, 3 * JOINTS, 8, 8, device=where), PAIRS, mode="offset")

    assert_no_copies(where, call)


# Codecs ---------------------------------------------------------------------------------------------------------------

MAPS = {
    "msra": codecs.MSRAHeatmap(INPUT, GRID, 2.0),
    "msra unbiased": codecs.MSRAHeatmap(INPUT, GRID, 2.0, unbiased=True),
    "msra compat": codecs.MSRAHeatmap(INPUT, GRID, 2.0, compat="mmpose"),
    "udp": codecs.UDPHeatmap(INPUT, GRID),
    "udp compat": codecs.UDPHeatmap(INPUT, GRID, compat="mmpose"),
    "udp combined": codecs.UDPHeatmap(INPUT, GRID, "combined"),
    "udp combined compat": codecs.UDPHeatmap(INPUT, GRID, "combined", compat="mmpose"),
    "megvii": codecs.MegviiHeatmap(INPUT, GRID, 9),
    "megvii compat": codecs.MegviiHeatmap(INPUT, GRID, 9, compat="mmpose"),
    "megvii compat, wide": codecs.MegviiHeatmap(INPUT, GRID, 11, compat="mmpose"),
    "hourglass": codecs.HourglassHeatmap(INPUT, GRID),
    "hourglass compat": codecs.HourglassHeatmap(INPUT, GRID, compat="hourglass"),
    "cpm": codecs.CPMHeatmap(INPUT, GRID, 2.0),
    "cpm compat": codecs.CPMHeatmap(INPUT, GRID, 2.0, compat="cpm"),
    "centernet": codecs.CenterNetHeatmap(INPUT, GRID),
}
LABELS = {
    "simcc": codecs.SimCCLabel(INPUT),
    "simcc dark": codecs.SimCCLabel(INPUT, use_dark=True),
    "simcc compat": codecs.SimCCLabel(INPUT, compat="mmpose"),
    "simcc standard": codecs.SimCCLabel(INPUT, "standard", label_smooth_weight=0.1),
    "regression": codecs.RegressionLabel(INPUT),
    "integral": codecs.IntegralRegressionLabel(INPUT, GRID, 2.0),
    "integral compat": codecs.IntegralRegressionLabel(INPUT, GRID, 2.0, compat="mmpose"),
}
PEOPLE = {
    "associative": (codecs.AssociativeEmbedding(INPUT, GRID), ()),
    "associative udp": (codecs.AssociativeEmbedding(INPUT, GRID, use_udp=True), ()),
    "spr": (codecs.SPR(INPUT, GRID, (4.0, 2.0), generate_keypoint_heatmaps=True), ()),
    "decoupled": (codecs.DecoupledHeatmap(INPUT, GRID), ()),
    "edpose": (codecs.EDPoseLabel(), ((256, 192),)),
}


def test_every_codec_is_here():
    kinds = {type(codec).__name__ for codec in (MAPS | LABELS).values()} | {"SimCC3DLabel"}
    kinds |= {type(codec).__name__ for codec, _ in PEOPLE.values()}
    assert kinds == {name for name in codecs.__all__ if hasattr(getattr(codecs, name), "encode")}


@pytest.mark.parametrize("name", MAPS)
def test_map_codecs(where, name):
    codec = copy.deepcopy(MAPS[name])
    keypoints, visible = torch.rand(2, 3, JOINTS, 2, device=where), torch.rand(2, 3, JOINTS, device=where)
    people = {"boxes": torch.rand(2, 3, 2, device=where)} if name == "centernet" else {}
    if "compat" in name or name == "udp combined":
        keypoints, visible = keypoints[:, 0], visible[:, 0]

    def call():
        maps, _ = codec.encode(keypoints, visible, **people)
        codec.decode(maps, flipped=maps.flip(-1), flip_pairs=PAIRS if "combined" not in name else [])
        if codec.compat is None and name not in ("udp combined", "megvii", "centernet"):
            pred = torch.empty_like(maps[:, :JOINTS], requires_grad=True)
            codec.loss(pred, keypoints, visible).backward()

    assert_no_copies(where, call)


@pytest.mark.parametrize("name", LABELS)
def test_label_codecs(where, name):
    codec = copy.deepcopy(LABELS[name])
    keypoints, visible = torch.rand(2, JOINTS, 2, device=where), torch.rand(2, JOINTS, device=where)

    def call():
        targets, _ = codec.encode(keypoints, visible)
        if "simcc" in name:
            codec.decode(*targets)
        else:
            codec.decode(targets[0] if isinstance(targets, tuple) else targets)

    assert_no_copies(where, call)


@pytest.mark.parametrize("name", PEOPLE)
def test_codecs_of_several_people_encode(where, name):
    codec, more = PEOPLE[name]
    keypoints = torch.rand(2, 3, JOINTS, 2, device=where)
    assert_no_copies(where, lambda: codec.encode(keypoints, *more))


def test_simcc_in_three_dimensions(where):
    codec = codecs.SimCC3DLabel((192, 256, 192))
    keypoints, depths = torch.rand(2, JOINTS, 2, device=where), torch.rand(2, JOINTS, device=where)

    def call():
        labels = codec.encode(keypoints, depths)
        codec.decode(*labels[:3])

    assert_no_copies(where, call)


# What is kept ---------------------------------------------------------------------------------------------------------


def test_constants_survive_inference_mode_and_tracing():
    """What was kept in one mode can be used in another: by autograd, by a fake tensor, after an export."""
    keypoints = torch.rand(1, JOINTS, 2)
    codec = codecs.MSRAHeatmap(INPUT, (47, 61), 2.0)
    with torch.inference_mode():
        maps, _ = codec.encode(keypoints)
        expected = codec.decode(maps).coords
    transform = codec.to_input(maps.device)
    (torch.ones(2, 2, requires_grad=True) @ transform).sum().backward()
    with torch._subclasses.fake_tensor.FakeTensorMode():
        codec.decode(torch.rand(1, JOINTS, 61, 47))
        codecs.MSRAHeatmap(INPUT, (45, 61), 2.0).decode(torch.rand(1, JOINTS, 61, 45))
    fresh = codecs.MSRAHeatmap(INPUT, (46, 61), 2.0)

    class Decode(torch.nn.Module):
        def forward(self, heatmaps):
            return fresh.decode(heatmaps).coords

    torch.export.export(Decode(), (torch.rand(1, JOINTS, 61, 46),))
    for kept, width in ((fresh, 46), (codecs.MSRAHeatmap(INPUT, (45, 61), 2.0), 45)):
        assert type(kept.decode(torch.rand(1, JOINTS, 61, width)).coords) is torch.Tensor
    torch.testing.assert_close(codec.decode(maps).coords, expected, rtol=0, atol=0)


def test_the_weights_of_a_blur_survive_an_export():
    codec = codecs.MegviiHeatmap(INPUT, GRID, 13, compat="mmpose")

    class Decode(torch.nn.Module):
        def forward(self, heatmaps):
            return codec.decode(heatmaps).coords

    torch.export.export(Decode(), (torch.rand(1, JOINTS, *SIZE),))
    assert type(codec.decode(torch.rand(1, JOINTS, *SIZE)).coords) is torch.Tensor
