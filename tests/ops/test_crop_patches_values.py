"""crop_patches by hand, against OpenCV and grid_sample on real images, and what the contract cannot express."""

import json
import math

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from contract_tools import only_on

from pypose_ops import crop_patches, geometry, reference

SIZE = (256, 192)
IDENTITY = torch.tensor([[[1.0, 0, 0], [0, 1, 0]]])


def moved(x, y):
    return torch.tensor([[[1.0, 0, x], [0, 1, y]]])


@pytest.fixture
def people(shared_data):
    """Real images with transforms of their people: upright, turned, and partly outside of the image."""
    folder, found = shared_data / "people", []
    for person in json.loads((folder / "persons.json").read_text())[::2]:
        photo = cv2.imread(str(folder / person["image"]))
        center, scale = geometry.box_to_center_and_scale(torch.tensor(person["bbox_xywh"]), SIZE, format="xywh")
        shift = torch.tensor([0.0, 0.4, -0.6])[:, None] * scale
        found.append((photo, geometry.box_to_transform(center + shift, scale, torch.tensor([0.0, 33.0, -140.0]), SIZE)))
    return found


def test_by_hand(device):
    photo = torch.tensor([[[[0.0, 10], [20, 30]]]], device=device)

    def crop(transform, **options):
        return crop_patches(photo, transform.to(device), (1, 3), **options)[0, 0].tolist()

    assert crop(moved(-0.5, 0.5)) == [[5, 15, 10]]
    assert crop(moved(-1.0, 0.0), padding="constant", fill=7.0) == [[7, 0, 10]]
    assert crop(moved(-1.5, 0.0), padding="border") == [[0, 0, 5]]
    assert crop(moved(-1.0, 0.0), padding="reflect") == [[10, 0, 10]]
    assert crop(moved(-0.5, 0.4), mode="nearest") == [[0, 10, 0]]
    assert crop(moved(0.0, 0.0), mean=10.0, std=4.0) == [[-2.5, 0, -2.5]]
    assert crop(torch.tensor([[[2.0, 0, 0.5], [0, 2, 0.5]]]), antialias=True) == [[15, 0, 0]]


def test_identity_is_the_image_bit_for_bit(device):
    photo = torch.rand(1, 3, 17, 23, device=device)
    assert torch.equal(crop_patches(photo, IDENTITY.to(device), (17, 23)), photo)
    pixels = (photo * 255).to(torch.uint8)
    assert torch.equal(crop_patches(pixels, IDENTITY.to(device), (17, 23), dtype=torch.uint8), pixels)


def test_bytes_out_are_rounded_and_clamped(device):
    photo = torch.tensor([[[[-3.0, 0.49, 0.5, 254.5, 255.4, 300.0, float("nan"), float("inf")]]]], device=device)
    out = crop_patches(photo, IDENTITY.to(device), (1, 8), dtype=torch.uint8)
    assert out.dtype == torch.uint8 and out.flatten().tolist() == [0, 0, 1, 255, 255, 255, 0, 255]
    expected = reference.crop_patches(photo, IDENTITY.to(device), (1, 8), dtype=torch.uint8)
    assert torch.equal(out, expected)


def test_nan_stays_in_its_pixels(device):
    photo = torch.zeros(1, 1, 4, 4, device=device)
    photo[0, 0, 0, 0] = float("nan")
    patch = crop_patches(photo, moved(-3.0, -3.0).to(device), (8, 8))
    assert patch.isnan().sum() == 1 and patch[0, 0, 3, 3].isnan()


def test_mask_by_hand(device):
    boxes = torch.tensor([[1.0, 2.0, 3.0, 2.5]], device=device)
    patch = crop_patches(torch.rand(1, 2, 5, 5, device=device), IDENTITY.to(device), (5, 5), mask=boxes, std=0.1)
    expected = torch.zeros(5, 5)
    expected[2, 1:4] = 1
    assert patch.shape == (1, 3, 5, 5) and torch.equal(patch[0, 2].cpu(), expected)


def test_equals_opencv_within_one_grey_level(device, people):
    for photo, transforms in people:
        pixels = torch.from_numpy(photo).to(device).permute(2, 0, 1)[None]
        ours = crop_patches(pixels, transforms.to(device), SIZE, dtype=torch.uint8).cpu()
        for patch, transform in zip(ours, transforms, strict=True):
            flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            theirs = cv2.warpAffine(photo, transform.double().numpy(), SIZE[::-1], flags=flags)
            assert np.abs(patch.permute(1, 2, 0).numpy().astype(int) - theirs).max() <= 1


@pytest.mark.parametrize("padding", ("zeros", "border", "reflect"))
def test_equals_grid_sample(device, people, padding):
    for photo, transforms in people:
        image = torch.from_numpy(photo).permute(2, 0, 1)[None].double() / 255
        size = torch.tensor(image.shape[:1:-1]).double()
        pixels = torch.stack(torch.meshgrid(torch.arange(192.0), torch.arange(256.0), indexing="xy"), -1).double()
        where = geometry.transform_points(pixels.reshape(-1, 2), transforms.double()).reshape(-1, *SIZE, 2)
        mode = {"reflect": "reflection"}.get(padding, padding)
        expected = F.grid_sample(
            image.expand(len(where), -1, -1, -1), 2 * where / (size - 1) - 1, padding_mode=mode, align_corners=True
        )
        ours = crop_patches(image.float().to(device), transforms.to(device), SIZE, padding=padding)
        assert (ours.cpu() - expected).abs().max() <= 1e-4


def test_antialias_is_the_mean_over_the_area(device, people):
    """Against 16 x 16 samples per patch pixel, for whole and broken factors and turned boxes."""
    small = (32, 24)
    finer = torch.tensor([[[1 / 16, 0, -15 / 32], [0, 1 / 16, -15 / 32]]])
    for photo, transforms in people:
        image = torch.from_numpy(photo).permute(2, 0, 1)[None].float()
        coarse = geometry.compose_transforms(transforms, torch.tensor([[[8.0, 0, 3.5], [0, 8, 3.5]]]))
        dense = crop_patches(image, geometry.compose_transforms(coarse, finer), (16 * 32, 16 * 24))
        oracle = F.avg_pool2d(dense, 16)
        ours = crop_patches(image.to(device), coarse.to(device), small, antialias=True).cpu()
        plain = crop_patches(image.to(device), coarse.to(device), small).cpu()
        error, naive = (ours - oracle).abs(), (plain - oracle).abs()
        assert error.mean() < 0.5 and error.max() < 8
        assert naive.mean() > 5 * error.mean()


def test_antialias_by_a_whole_factor_is_opencvs_area(device, people):
    for photo, _ in people:
        height, width = (n // 4 for n in photo.shape[:2])
        photo = photo[: 4 * height, : 4 * width]
        quarter = torch.tensor([[[4.0, 0, 1.5], [0, 4, 1.5]]], device=device)
        pixels = torch.from_numpy(np.ascontiguousarray(photo)).to(device).permute(2, 0, 1)[None]
        ours = crop_patches(pixels, quarter, (height, width), antialias=True).cpu()[0].permute(1, 2, 0)
        expected = cv2.resize(photo.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
        np.testing.assert_allclose(ours, expected, atol=2e-3)
        return  # one image: the simt device takes a second for each


def test_gradients_of_a_list(device):
    batch = torch.rand(3, 2, 6, 7, device=device, dtype=torch.float64)
    images = [image.clone().requires_grad_() for image in batch]
    transforms = (torch.rand(5, 2, 3, device=device, dtype=torch.float64) * 2 - 0.5).requires_grad_()
    index = torch.tensor([2, 0, 2, -1, 0], device=device)
    options = dict(image_index=index, padding="border", std=[0.5, 2.0])
    weights = torch.rand(5, 2, 4, 3, device=device, dtype=torch.float64)
    actual = torch.autograd.grad(
        (crop_patches(images, transforms, (4, 3), **options) * weights).sum(), [*images, transforms]
    )
    batch.requires_grad_()
    whole = crop_patches(batch, transforms, (4, 3), **options)
    expected = torch.autograd.grad((whole * weights).sum(), [batch, transforms])
    torch.testing.assert_close(torch.stack(actual[:3]), expected[0])
    torch.testing.assert_close(actual[3], expected[1])
    some = torch.autograd.grad((crop_patches(images, transforms, (4, 3), **options) * weights).sum(), images[2])
    torch.testing.assert_close(some[0], actual[2])
    assert not actual[1].any()


def test_deterministic_algorithms_are_no_obstacle(device):
    torch.use_deterministic_algorithms(True)
    try:
        images = torch.rand(1, 2, 6, 7, device=device, requires_grad=True)
        crop_patches(images, IDENTITY.to(device), (4, 3)).sum().backward()
    finally:
        torch.use_deterministic_algorithms(False)
    assert images.grad[0, :, :4, :3].eq(1).all() and images.grad.sum() == 24


def test_cascade_of_joint_crops(device):
    """14 joints of several images in one call; each joint is the centre of its crop."""
    photos = torch.zeros(3, 1, 60, 80, device=device)
    pose = (torch.rand(3, 14, 2, device=device) * torch.tensor([70.0, 50], device=device) + 5).round()
    for b in range(3):
        photos[b, 0, pose[b, :, 1].long(), pose[b, :, 0].long()] = 1
    center, scale = geometry.joint_boxes(pose, (9, 2), sigma=0.0)
    transforms = geometry.box_to_transform(center, scale + 15, 0.0, (15, 15), align="center").flatten(0, 1)
    index = torch.arange(3, device=device).repeat_interleave(14)
    crops = crop_patches(photos, transforms, (15, 15), image_index=index)
    assert crops.shape == (42, 1, 15, 15)
    torch.testing.assert_close(crops[:, 0, 7, 7], torch.ones(42, device=device), rtol=0, atol=1e-4)


def test_far_corner_of_a_wide_image(device):
    """Float32 coordinates near 100,000 keep their fractions: a plain product would be off by 1/128 px."""
    photo = torch.zeros(1, 1, 2, 100_000, device=device)
    photo[..., 99_990] = 1
    transform = torch.tensor([[[0.25, 0, 99_989.0], [0, 1, 0]]], device=device)
    row = crop_patches(photo, transform, (1, 9)).flatten().tolist()
    assert row == [0, 0.25, 0.5, 0.75, 1, 0.75, 0.5, 0.25, 0]


@only_on("cpu")
def test_memory_is_the_output(device):
    """No copy of the images, whatever their layout."""
    photos = torch.randint(256, (2, 400, 500, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    transforms = IDENTITY.expand(4, 2, 3)
    index = torch.zeros(4, dtype=torch.int64)
    with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        crop_patches(photos, transforms, (8, 8), image_index=index)
    taken = sum(max(0, event.self_cpu_memory_usage) for event in profile.key_averages())
    assert taken <= 4 * 3 * 8 * 8 * 4 + 4 * 6 * 4 + 64


def resized(source, target):
    """The transform of torch's interpolate from one size to another."""
    (h, w), (th, tw) = source, target
    x, y = w / tw, h / th
    return torch.tensor([[[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2]]], dtype=torch.float64)


@pytest.mark.parametrize("antialias", (False, True))
@pytest.mark.parametrize("target", ((80, 120), (37, 53), (20, 17), (5, 90)))
def test_bicubic_is_torchs_interpolate(device, target, antialias):
    """Up to the edges of the image."""
    torch.manual_seed(0)
    images = torch.rand(2, 3, 37, 53, dtype=torch.float64, device=device)
    options = {"mode": "bicubic", "antialias": antialias, "padding": "border"}
    transforms = resized((37, 53), target).repeat(2, 1, 1).to(device)
    expected = F.interpolate(images, size=target, mode="bicubic", antialias=antialias)
    torch.testing.assert_close(crop_patches(images, transforms, target, **options), expected, rtol=0, atol=1e-12)
    flipped = transforms.clone()
    flipped[:, 0, 2] += (target[1] - 1) * flipped[:, 0, 0]
    flipped[:, 0, 0] *= -1
    torch.testing.assert_close(crop_patches(images, flipped, target, **options), expected.flip(3), rtol=0, atol=1e-12)


@pytest.mark.parametrize("padding", ("zeros", "border", "reflect"))
@pytest.mark.parametrize("angle", (0.0, 0.3))
def test_bicubic_is_grid_sample(device, padding, angle):
    torch.manual_seed(0)
    image = torch.rand(1, 3, 31, 40, dtype=torch.float64, device=device)
    cos, sin = 0.9 * np.cos(angle), 0.9 * np.sin(angle)
    transforms = torch.tensor([[[cos, -sin, -3.3], [sin, cos, -5.1]]], dtype=torch.float64, device=device)
    y, x = torch.meshgrid(torch.arange(40.0).double(), torch.arange(50.0).double(), indexing="ij")
    at = geometry.transform_points(torch.stack((x, y), -1).reshape(1, -1, 2).to(device), transforms)
    grid = 2 * at.reshape(1, 40, 50, 2) / at.new_tensor([39, 30]) - 1
    mode = {"reflect": "reflection"}.get(padding, padding)
    expected = F.grid_sample(image, grid, mode="bicubic", padding_mode=mode, align_corners=True)
    actual = crop_patches(image, transforms, (40, 50), mode="bicubic", padding=padding)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


def test_bicubic_by_hand(device):
    """Halfway between the middle pixels the weights are -3/32, 19/32, 19/32, -3/32."""
    image = torch.tensor([[[[1.0, 2, 4, 8]]]], device=device)
    options = {"mode": "bicubic"}
    half = moved(1.5, 0.0).to(device)
    assert crop_patches(image, half, (1, 1), **options).item() == pytest.approx((-3 * 9 + 19 * 6) / 32)
    # Between the last pixel and the padding: 4, 8, fill, fill.
    last = moved(3.5, 0.0).to(device)
    expected = (-3 * 4 + 19 * 8 + 19 * 7 - 3 * 7) / 32
    assert crop_patches(image, last, (1, 1), padding="constant", fill=7.0, **options).item() == pytest.approx(expected)


def test_bicubic_is_opencvs(people):
    """Which rounds its weights to multiples of 1/32 of a pixel and its results to whole grey levels."""
    for photo, transforms in people[:2]:
        pixels = torch.from_numpy(photo).permute(2, 0, 1)
        patches = crop_patches(pixels, transforms, SIZE, mode="bicubic", dtype=torch.uint8).permute(0, 2, 3, 1)
        for patch, matrix in zip(patches.numpy(), transforms.numpy(), strict=True):
            warped = cv2.warpAffine(photo, matrix, SIZE[::-1], flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP)
            difference = np.abs(patch.astype(int) - warped)
            assert difference.mean() < 0.6 and difference.max() < 24


LAYOUTS = {
    "planes": lambda image: image.contiguous(),
    "channels last": lambda image: image.contiguous(memory_format=torch.channels_last),
    "without alpha": lambda image: LAYOUTS["channels last"](torch.cat((image, image[:, :1]), 1))[:, :-1],
    "every other column": lambda image: image.repeat_interleave(2, 3)[..., ::2],
    "turned": lambda image: image.mT.contiguous().mT,
}


@only_on("cpu")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("padding", ("constant", "border", "reflect"))
@pytest.mark.parametrize("size", ((53, 47), (1, 30)))
def test_upright_means_of_bytes(device, layout, padding, size):
    """Shrunk, enlarged, mirrored along either axis, across every border, far away, and hardly turned."""
    torch.manual_seed(0)
    image = LAYOUTS[layout](torch.randint(256, (2, 3, *size), dtype=torch.uint8)).to(device)
    steps = [(1.0, 1.0), (0.5, 3.0), (2.0, 2.0), (-2.5, 1.3), (7.9, -8.0), (4.0, 0.7), (1.2, 40.0), (33.0, 2.0)]
    transforms = torch.zeros(len(steps) * 2 + 1, 2, 3)
    transforms[-1] = torch.tensor([[4.0, 0.0, 1e4], [0.0, 4.0, 0.0]])
    for n in range(2 * len(steps)):
        x, y = steps[n // 2]
        transforms[n, :, :2] = torch.tensor([[x, 0.0], [0.0, y]])
        transforms[n, :, 2] = torch.tensor([(-20.0, -9.5), (17.25, 8.0)][n % 2])
    index = torch.arange(len(transforms)) % 2
    options = dict(image_index=index.to(device), padding=padding, antialias=True)
    options |= dict(mean=[10.0, 20.0, 30.0], std=[2.0, 3.0, 4.0])
    if padding == "constant":
        options |= dict(fill=[1.0, 2.0, 250.0])
    actual = crop_patches(image, transforms.to(device), (7, 11), **options)
    expected = reference.crop_patches(image, transforms.to(device), (7, 11), **options)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=2e-3)
    turned = transforms.clone()
    turned[:, 0, 1] = 1e-7  # one sample after the other
    torch.testing.assert_close(crop_patches(image, turned.to(device), (7, 11), **options), actual, rtol=1e-4, atol=5e-3)
    torch.set_num_threads(2)
    assert torch.equal(crop_patches(image, transforms, (7, 11), **options), actual)


@pytest.mark.parametrize("dtype", (torch.float16, torch.bfloat16))
@pytest.mark.parametrize("shape", ((2, 90, 150), (3, 40, 1), (1, 1, 70)))
@pytest.mark.parametrize("layout", (torch.contiguous_format, torch.channels_last))
def test_pixels_of_16_bits_are_those_of_32(device, dtype, shape, layout):
    """Patches wider than what is gathered at once, and no multiple of a vector; with a NaN and subnormals."""
    image = (torch.rand(1, *shape, generator=torch.Generator().manual_seed(0)) - 0.3).to(dtype)
    image[..., ::7, :] *= 1e-6
    image[..., -1, -1] = math.nan
    image = image.to(device).contiguous(memory_format=layout)
    transforms = torch.tensor([[[0.9, 0.1, -3.0], [-0.05, 0.8, 2.0]], [[1.0, 0, 0], [0, 1, 0]]], device=device)
    for options in ({}, {"mode": "nearest"}, {"antialias": True}, {"padding": "border", "mean": (0.5,), "std": (0.2,)}):
        options = options | {"image_index": torch.zeros(2, dtype=torch.int64, device=device), "dtype": torch.float32}
        got, expected = (crop_patches(i, transforms, (50, 141), **options) for i in (image, image.float()))
        torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("shape", ((3, 90, 150), (3, 5, 4), (1, 40, 30), (4, 33, 47), (11, 20, 2), (3, 60, 1)))
@pytest.mark.parametrize("layout", LAYOUTS)
def test_bytes_are_those_of_floats(device, shape, layout):
    """Patches of less, as much and more than is taken at once, inside of the image, across its borders and turned."""
    generator = torch.Generator().manual_seed(0)
    image = LAYOUTS[layout](torch.randint(256, (1, *shape), dtype=torch.uint8, generator=generator)).to(device)
    scales, angles = torch.tensor([0.05, 0.2, 0.7, 1.0, 2.3]), torch.tensor([0.0, 0.6, 1.5707964, 3.0, -2.2])
    center = torch.rand(5, 2, generator=generator) * torch.tensor(shape[:0:-1])
    for size in ((33, 128), (2, 259), (40, 5), (7, 1)):
        x, y = scales * angles.cos(), scales * angles.sin()
        turn = torch.stack((torch.stack((x, -y), -1), torch.stack((y, x), -1)), -2)
        corner = center - (turn @ torch.tensor([size[1] / 2, size[0] / 2])[:, None])[..., 0]
        transforms = torch.cat((turn, corner[..., None]), -1).to(device)
        index = torch.zeros(5, dtype=torch.int64, device=device)
        for options in (
            {},
            {"padding": "border"},
            {"padding": "constant", "fill": 9.0, "mean": 7.0, "std": 2.0},
            {"antialias": True},
        ):
            options = options | {"image_index": index}
            got, expected = (crop_patches(i, transforms, size, **options) for i in (image, image.float()))
            torch.testing.assert_close(got, expected, rtol=1e-5, atol=2e-3)
        torch.set_num_threads(2)
        assert torch.equal(crop_patches(image, transforms, size, **options), got)
