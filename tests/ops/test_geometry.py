"""Boxes and transforms: closed forms of other libraries, round trips, derivatives."""

import itertools
import math
import warnings
from functools import partial

import cv2
import numpy as np
import pytest
import torch

from pypose_ops import crop_patches, geometry, skeletons
from pypose_ops.geometry import (
    box_to_center_and_scale,
    box_to_transform,
    compose_transforms,
    invert_transform,
    joint_boxes,
    transform_points,
)

SIZE = (256, 192)
BOXES = torch.tensor([[100.0, 50, 220, 350], [10, 20, 300, 100], [-20, 30.5, 80.25, 200]])
ANGLES = torch.tensor([30.0, -75, 170])


def hrnet_matrix(center, scale, degrees, size):
    """HRNet's and MMPose's construction: three points, a similarity from the width."""
    angle, height, width = math.radians(degrees), *size
    direction = np.array([0, -0.5 * scale[0]])
    turned = [
        direction[0] * math.cos(angle) - direction[1] * math.sin(angle),
        direction[0] * math.sin(angle) + direction[1] * math.cos(angle),
    ]
    src, dst = np.zeros((3, 2), np.float32), np.zeros((3, 2), np.float32)
    src[0], src[1] = center, center + turned
    dst[0], dst[1] = (width / 2, height / 2), (width / 2, height / 2 - width / 2)
    for points in (src, dst):
        across = points[0] - points[1]
        points[2] = points[1] + (-across[1], across[0])
    return cv2.getAffineTransform(dst, src)


def udp_matrix(center, scale, degrees, size):
    """Image -> patch, as in the paper (Huang et al., CVPR 2020) and MMPose."""
    angle, (height, width) = math.radians(degrees), size
    cos, sin = math.cos(angle), math.sin(angle)
    sx, sy = (width - 1) / scale[0], (height - 1) / scale[1]
    x, y = center
    return np.array(
        [
            [cos * sx, -sin * sx, sx * (-x * cos + y * sin + scale[0] / 2)],
            [sin * sy, cos * sy, sy * (-x * sin - y * cos + scale[1] / 2)],
        ]
    )


def test_center_and_scale_by_hand():
    center, scale = box_to_center_and_scale(torch.tensor([[100.0, 50, 190, 110], [0, 0, 30, 80]]), (256, 192))
    assert center.tolist() == [[145, 80], [15, 40]]
    assert scale.tolist() == [[112.5, 150], [75, 100]]
    same = box_to_center_and_scale(torch.tensor([[100.0, 50, 90, 60], [0, 0, 30, 80]]), (256, 192), format="xywh")
    assert torch.equal(same[0], center) and torch.equal(same[1], scale)


def test_hugging_face_rule():
    """transformers' box_to_center_and_scale: (x, y, w, h), scales in units of 200."""
    x, y, w, h = 12.0, 7.0, 55.0, 190.0
    aspect = 192 / 256
    grown = (w, w / aspect) if w > aspect * h else (h * aspect, h)
    center, scale = box_to_center_and_scale(torch.tensor([x, y, w, h]), SIZE, format="xywh")
    assert center.tolist() == [x + w / 2, y + h / 2]
    torch.testing.assert_close(scale / 200, torch.tensor(grown) / 200 * 1.25)


def test_index_is_hrnet_and_mmpose():
    center, scale = box_to_center_and_scale(BOXES, SIZE)
    ours = box_to_transform(center, scale, ANGLES, SIZE, align="index")
    for i in range(3):
        theirs = hrnet_matrix(center[i].numpy(), scale[i].numpy(), ANGLES[i].item(), SIZE)
        np.testing.assert_allclose(ours[i], theirs, rtol=1e-4, atol=2e-4)


def test_corners_is_udp():
    center, scale = box_to_center_and_scale(BOXES.double(), SIZE)
    ours = box_to_transform(center, scale, -ANGLES, SIZE, align="corners")
    for i in range(3):
        theirs = udp_matrix(center[i].tolist(), scale[i].tolist(), ANGLES[i].item(), SIZE)
        np.testing.assert_allclose(invert_transform(ours[i]), theirs, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize(
    ("align", "center", "scale", "rule"),
    [
        ("index", (320, 180), (640, 360), lambda x, n, m: x * n / m),
        ("center", (319.5, 179.5), (640, 360), lambda x, n, m: (x + 0.5) * n / m - 0.5),
        ("corners", (319.5, 179.5), (639, 359), lambda x, n, m: x * (n - 1) / (m - 1)),
    ],
)
def test_the_whole_image(align, center, scale, rule):
    transform = box_to_transform(
        torch.tensor(center).double(), torch.tensor(scale).double(), 0.0, (64, 48), align=align
    )
    points = torch.rand(7, 2).double() * 40
    expected = torch.stack([rule(points[:, 0], 640, 48), rule(points[:, 1], 360, 64)], -1)
    torch.testing.assert_close(transform_points(points, transform), expected)


def test_corners_meet_the_box():
    center, scale = torch.tensor([50.0, 40.0]), torch.tensor([30.0, 20.0])
    corners = torch.tensor([[0.0, 0.0], [191.0, 255.0]])
    transform = box_to_transform(center, scale, 0.0, SIZE, align="corners")
    torch.testing.assert_close(transform_points(corners, transform), torch.tensor([[35.0, 30.0], [65.0, 50.0]]))


@pytest.mark.parametrize("align", geometry.ALIGNS)
def test_flip_is_the_mirrored_patch(align):
    center, scale = box_to_center_and_scale(BOXES[:1], (6, 5))
    image = torch.rand(1, 2, 60, 70)
    plain = box_to_transform(center, scale / 4, 25.0, (6, 5), align=align)
    flipped = box_to_transform(center, scale / 4, 25.0, (6, 5), align=align, flip=torch.tensor([True]))
    mirrored = crop_patches(image, flipped, (6, 5), padding="border").flip(-1)
    torch.testing.assert_close(mirrored, crop_patches(image, plain, (6, 5), padding="border"), rtol=1e-4, atol=1e-4)
    mixed = box_to_transform(
        center.expand(2, 2), scale / 4, 25.0, (6, 5), align=align, flip=torch.tensor([True, False])
    )
    assert torch.equal(mixed, torch.cat([flipped, plain]))


@pytest.mark.parametrize("align", geometry.ALIGNS)
@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
def test_round_trips(align, dtype):
    center, scale = box_to_center_and_scale(
        torch.rand(200, 4, dtype=dtype) * 900 + torch.tensor([0, 0, 950, 950]), SIZE
    )
    transform = box_to_transform(center, scale, torch.rand(200, dtype=dtype) * 360, SIZE, align=align)
    inverse = invert_transform(transform)
    points = torch.rand(200, 9, 2, dtype=dtype) * torch.tensor([192, 256])
    back = transform_points(transform_points(points, transform), inverse)
    assert (back - points).abs().max() <= (1e-4 if dtype == torch.float32 else 1e-10)
    both = compose_transforms(inverse, transform)
    assert (transform_points(points, both) - points).abs().max() <= (1e-3 if dtype == torch.float32 else 1e-10)


def test_composition_applies_the_inner_one_first():
    outer, inner = torch.rand(4, 2, 3).double(), torch.rand(4, 2, 3).double()
    points = torch.rand(4, 5, 2).double()
    expected = transform_points(transform_points(points, inner), outer)
    torch.testing.assert_close(transform_points(points, compose_transforms(outer, inner)), expected)


def test_joint_boxes_by_hand():
    lsp = skeletons.LSP.joints
    torso = lsp.index("left_shoulder"), lsp.index("right_hip")
    assert torso == (9, 2)
    pose = torch.zeros(1, 14, 2)
    pose[0, 9], pose[0, 2], pose[0, 0] = torch.tensor([30.0, 40]), torch.tensor([0.0, 0]), torch.tensor([7.0, 8])
    center, scale = joint_boxes(pose, torso, sigma=2.0)
    assert torch.equal(center, pose) and (scale == 100).all() and scale.shape == (1, 14, 2)
    inside = geometry.normalize_to_box(pose + 25, center, scale)
    assert (inside == 0.25).all()
    assert torch.equal(geometry.denormalize_from_box(inside, center, scale), pose + 25)


@pytest.mark.parametrize("align", geometry.ALIGNS)
def test_derivatives(align):
    center, scale = (v.requires_grad_() for v in box_to_center_and_scale(BOXES.double(), SIZE))
    angle = ANGLES.double().requires_grad_()

    def call(center, scale, angle):
        transform = box_to_transform(center, scale, angle, SIZE, align=align)
        return transform, invert_transform(transform), compose_transforms(transform, transform)

    assert torch.autograd.gradcheck(call, (center.detach().requires_grad_(), scale.detach().requires_grad_(), angle))
    pose = (torch.rand(2, 14, 2).double() * 100).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: joint_boxes(p, (9, 2), sigma=2.0)[1], pose)
    assert torch.autograd.gradcheck(lambda b: box_to_center_and_scale(b, SIZE), BOXES.double().requires_grad_())


def test_bad_input():
    center, scale = torch.zeros(2), torch.ones(2)
    with pytest.raises(ValueError, match="box_to_transform: align must be one of index, center, corners"):
        box_to_transform(center, scale, 0.0, SIZE, align="udp")
    with pytest.raises(ValueError, match="box_to_transform: align='corners' needs a size of at least"):
        box_to_transform(center, scale, 0.0, (1, 4), align="corners")
    with pytest.raises(ValueError, match="box_to_center_and_scale: format must be one of xyxy, xywh"):
        box_to_center_and_scale(torch.zeros(4), SIZE, format="cxcywh")


@pytest.mark.parametrize("sizes", [(-3.0, 5.0), (3.0, -0.5)])
def test_negative_sizes_are_refused(sizes):
    """They would mirror in silence; flip mirrors by name."""
    points, scale = torch.zeros(2, 2), torch.tensor([(3.0, 5.0), sizes])
    for op, call in {
        "box_to_transform": lambda s: box_to_transform(points[: len(s)], s, 0.0, SIZE),
        "normalize_to_box": lambda s: geometry.normalize_to_box(points[: len(s)], points[: len(s)], s),
        "denormalize_from_box": lambda s: geometry.denormalize_from_box(points[: len(s)], points[: len(s)], s),
    }.items():
        call(scale[:1])
        call(torch.full((2, 2), float("nan")))  # of somebody who was not found
        with pytest.raises(ValueError, match=f"{op}: scale must not be negative"):
            call(scale)
    with pytest.raises(ValueError, match="joint_boxes: sigma must not be negative"):
        joint_boxes(torch.zeros(1, 3, 2), (0, 1), sigma=-1.0)


def test_geometry_under_vmap():
    """Values cannot be looked at there."""
    boxes = torch.tensor([[0.0, 0.0, 30.0, 50.0], [10.0, 20.0, 40.0, 25.0]])

    def transform(box):
        return box_to_transform(*box_to_center_and_scale(box, SIZE), 10.0, SIZE)

    assert torch.equal(torch.func.vmap(transform)(boxes), transform(boxes))


@pytest.mark.parametrize(
    ("box", "format"), [((9.0, 0, 3, 5), "xyxy"), ((0.0, 5, 3, 4), "xyxy"), ((0, 0, 3, -1.0), "xywh")]
)
def test_inverted_boxes_are_refused(box, format):
    boxes = torch.tensor([(0.0, 0.0, 3.0, 5.0), box])
    with pytest.raises(ValueError, match="box_to_center_and_scale: boxes must not be inverted"):
        geometry.box_to_center_and_scale(boxes, (256, 192), format=format)
    geometry.box_to_center_and_scale(boxes[:1], (256, 192), format=format)


@pytest.mark.parametrize("align", ("index", "center", "corners"))
@pytest.mark.parametrize("flip", (False, True))
@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
def test_upright_boxes_take_fewer_steps_to_the_same_numbers(align, flip, dtype):
    """Bit for bit; a rotation that is a tensor goes through the steps."""
    center, scale = 500 * torch.rand(7, 3, 2, dtype=dtype), 300 * torch.rand(7, 3, 2, dtype=dtype)
    ours = box_to_transform(center, scale, 0.0, (61, 45), align=align, flip=flip)
    steps = box_to_transform(center, scale, torch.zeros(7, 3), (61, 45), align=align, flip=flip)
    torch.testing.assert_close(ours, steps, rtol=0, atol=0)
    wide = box_to_transform(center[:, :1], scale, 0.0, (61, 45), align=align, flip=flip)
    assert torch.equal(wide[:, 0], ours[:, 0]) and wide.shape == ours.shape


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
def test_one_call_on_the_host_gives_the_bits_of_the_steps(dtype):
    """A tensor that requires a gradient goes through the steps."""
    boxes = 300 * torch.rand(5, 3, 4, dtype=dtype)
    boxes[..., 2:] += boxes[..., :2]
    boxes[0, 0] = float("nan")
    same = partial(torch.testing.assert_close, rtol=0, atol=0, equal_nan=True)
    for some in (boxes, boxes[1, 2], boxes[:0], boxes.transpose(0, 1)):
        for format in ("xyxy", "xywh"):
            center, scale = box_to_center_and_scale(some, SIZE, padding=1.1, format=format)
            steps = box_to_center_and_scale(some.clone().requires_grad_(), SIZE, padding=1.1, format=format)
            same((center, scale), tuple(t.detach() for t in steps))
        for rotation, flip, align in itertools.product((0, -33.0, 140), (False, True), ("index", "corners")):
            ours = box_to_transform(center, scale, rotation, SIZE, align=align, flip=flip)
            steps = box_to_transform(center.clone().requires_grad_(), scale, rotation, SIZE, align=align, flip=flip)
            same(ours, steps.detach())
    mapped = torch.func.vmap(lambda c, s: box_to_transform(c, s, 0.0, SIZE))(center, scale)
    same(mapped, box_to_transform(center, scale, 0.0, SIZE))


def test_boxes_of_many_dimensions():
    boxes = torch.tensor([10.0, 20.0, 60.0, 90.0]).expand(1, 1, 1, 2, 1, 1, 4)
    center, scale = box_to_center_and_scale(boxes, SIZE)
    flat = box_to_center_and_scale(boxes.reshape(-1, 4), SIZE)
    assert torch.equal(center.reshape(-1, 2), flat[0]) and torch.equal(scale.reshape(-1, 2), flat[1])
    for rotation in (0, 20):
        ours = box_to_transform(center, scale, rotation, SIZE)
        assert torch.equal(ours.reshape(-1, 2, 3), box_to_transform(*flat, rotation, SIZE))


def test_traced_boxes_keep_their_gradients():
    def transform(boxes):
        return box_to_transform(*box_to_center_and_scale(boxes, SIZE), 20.0, SIZE)

    boxes = torch.tensor([[10.0, 20.0, 60.0, 90.0]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        traced = torch.jit.trace(transform, boxes), torch.fx.experimental.proxy_tensor.make_fx(transform)(boxes)
    wanted = boxes.clone().requires_grad_()
    transform(wanted).sum().backward()
    for program in traced:
        given = boxes.clone().requires_grad_()
        program(given).sum().backward()
        torch.testing.assert_close(given.grad, wanted.grad)


def test_boxes_without_a_gradient_take_one_call():
    boxes = torch.tensor([[10.0, 20.0, 60.0, 90.0]], requires_grad=True)
    with torch.no_grad():
        center, scale = box_to_center_and_scale(boxes, SIZE)
        assert not center.requires_grad
        with torch.profiler.profile() as profile:
            box_to_transform(center.requires_grad_(), scale, 20.0, SIZE)
    assert "pypose_ops::_box_transforms" in {event.name for event in profile.events()}


def test_wrong_last_dimensions_are_named():
    with pytest.raises(ValueError, match=r"box_to_center_and_scale: boxes must be \(\.\.\., 4\), got shape \(2, 3\)"):
        box_to_center_and_scale(torch.rand(2, 3), SIZE)
    with pytest.raises(ValueError, match=r"box_to_transform: center and scale must be \(\.\.\., 2\)"):
        box_to_transform(torch.rand(2, 3), torch.rand(2, 3), 0.0, SIZE)


@pytest.mark.parametrize("device", ("cpu", "meta"))
def test_upright_boxes_of_every_kind(device):
    """What neither the one call nor the few steps take goes through all of them."""
    center, scale = 500 * torch.rand(4, 2), 300 * torch.rand(4, 2)
    for c, s, flip in (
        (center, scale, torch.tensor([True, False, True, False])),
        (center, scale[:1], False),
        (center, scale.double(), False),
        (torch.nn.Parameter(center), scale, False),
    ):
        c, s = c.to(device), s.to(device)
        flip = flip.to(device) if isinstance(flip, torch.Tensor) else flip
        ours = box_to_transform(c, s, 0.0, (64, 48), flip=flip)
        steps = box_to_transform(c, s, torch.zeros(4, device=device), (64, 48), flip=flip)
        assert ours.shape == (4, 2, 3)
        torch.testing.assert_close(ours, steps.to(ours.dtype))
    compiled = torch.compile(box_to_transform, backend="eager")
    torch.testing.assert_close(compiled(center, scale, 0.0, (64, 48)), box_to_transform(center, scale, 0.0, (64, 48)))
