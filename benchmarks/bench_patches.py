"""crop_patches against the fill of its output, OpenCV and grid_sample.  pytest benchmarks/bench_patches.py"""

import functools
from functools import partial

import bench_tools
import pytest
import torch
import torch.nn.functional as F
from bench_tools import Rotating

from pypose_ops import box_vote, crop_patches, geometry, reference

pytestmark = pytest.mark.benchmark(max_time=0.6, min_rounds=3, warmup=False)
MEAN, STD = (123.7, 116.3, 103.5), (58.4, 57.1, 57.4)
CROPS = (64, 3, 256, 192)  # of one 720p image
CASCADE = (64 * 14, 3, 64, 64)  # of 64 images
MAPS = (64, 256, 16, 12)  # of feature maps, forward and backward


def transforms_of(count, size, source, device):
    """People of many sizes, upright and turned, some partly outside."""
    height, width = source
    scale = (0.4 + 0.8 * torch.rand(count, 1)) * height * torch.tensor([size[1] / size[0], 1.0])
    center = torch.rand(count, 2) * torch.tensor([float(width), height])
    return geometry.box_to_transform(center, scale, (torch.rand(count) - 0.5) * 90, size).to(device)


def image_of(device):
    return torch.randint(256, (1, 720, 1280, 3), dtype=torch.uint8).to(device)


def op(source, transforms, dtype=torch.float32, **options):
    return crop_patches(source.permute(0, 3, 1, 2), transforms, CROPS[2:], mean=MEAN, std=STD, dtype=dtype, **options)


def op_planar(source, transforms):
    return crop_patches(source, transforms, CROPS[2:], mean=MEAN, std=STD)


def the_reference(source, transforms):
    return reference.crop_patches(source.permute(0, 3, 1, 2), transforms, CROPS[2:], mean=MEAN, std=STD)


def grid_of(transforms, size, source):
    """What affine_grid wants: normalised coordinates on both sides."""
    scale = 2 / (transforms.new_tensor(source[::-1]) - 1)
    h, w = size
    patch = transforms.new_tensor([[(w - 1) / 2, 0, (w - 1) / 2], [0, (h - 1) / 2, (h - 1) / 2]])
    theta = geometry.compose_transforms(transforms, patch.expand_as(transforms)) * scale[:, None]
    theta = torch.cat((theta[..., :2], theta[..., 2:] - 1), -1)
    return F.affine_grid(theta, (len(theta), 1, *size), align_corners=True)


def grid_sample(source, transforms, mode="bilinear"):
    image = source.permute(0, 3, 1, 2).float()
    grid = grid_of(transforms, CROPS[2:], source.shape[1:3])
    # One tall grid: expanding the image to a batch would copy it.
    out = F.grid_sample(image, grid.reshape(1, -1, CROPS[3], 2), mode=mode, align_corners=True)
    out = out.reshape(3, len(transforms), *CROPS[2:]).transpose(0, 1)
    mean, std = (torch.tensor(v, device=out.device)[:, None, None] for v in (MEAN, STD))
    return (out - mean) / std


def opencv(source, transforms, cubic=False):
    """What a data loader does: warp each box, then normalise and transpose."""
    cv2, np = pytest.importorskip("cv2"), pytest.importorskip("numpy")
    pixels, matrices = source[0].numpy(), transforms.numpy()
    mean, std = np.float32(MEAN), np.float32(STD)
    out = np.empty((len(matrices), *CROPS[1:]), np.float32)
    flags = (cv2.INTER_CUBIC if cubic else cv2.INTER_LINEAR) | cv2.WARP_INVERSE_MAP
    for i, matrix in enumerate(matrices):
        patch = cv2.warpAffine(pixels, matrix, CROPS[:1:-1], flags=flags)
        out[i] = ((patch.astype(np.float32) - mean) / std).transpose(2, 0, 1)
    return torch.from_numpy(out)


def opencv_in_place(source, transforms):
    """The same at its best: one batch of bytes, normalised at once into kept memory; as many threads as torch."""
    cv2, np = pytest.importorskip("cv2"), pytest.importorskip("numpy")
    cv2.setNumThreads(torch.get_num_threads())
    pixels = source[0].numpy()
    patches = np.empty((len(transforms), *CROPS[2:], 3), np.uint8)
    for patch, matrix in zip(patches, transforms.numpy(), strict=True):
        cv2.warpAffine(pixels, matrix, CROPS[:1:-1], dst=patch, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    out = kept_output(source.device)
    mean, std = (torch.tensor(v)[:, None, None] for v in (MEAN, STD))
    return out.copy_(torch.from_numpy(patches).permute(0, 3, 1, 2)).sub_(mean).div_(std)


@functools.cache
def kept_output(device):
    return torch.empty(CROPS, device=device)


# row -> callable; all are compared with the op, OpenCV's weights to one grey level
ROWS = {
    "op": op,
    "op, planar": op_planar,
    "op, antialias": lambda p, t: op(p, t, antialias=True),
    "op, out": lambda p, t: op(p, t, out=kept_output(p.device)),
    "op, float16": lambda p, t: op(p, t, torch.float16),
    "reference": the_reference,
    "grid_sample + normalise": grid_sample,
    "opencv + normalise": opencv,
    "opencv, in place": opencv_in_place,
}


SHRUNK = (8, 3, 256, 192)  # of one 2160p image, upright


def shrunk_by(shrink, device):
    """A 2160p image, channels last, and where the crops begin in it: whole pixels, so that the peers can slice."""
    height, width = (shrink * n for n in SHRUNK[2:])
    room = torch.tensor([3840 - width, 2160 - height])
    corners = (torch.rand(SHRUNK[0], 2) * room).long()
    image = torch.randint(256, (1, 2160, 3840, 3), dtype=torch.uint8).to(device)
    # The middle of pixel (0, 0) is that of shrink x shrink pixels.
    transforms = torch.zeros(SHRUNK[0], 2, 3)
    transforms[:, 0, 0] = transforms[:, 1, 1] = shrink
    transforms[:, :, 2] = corners + (shrink - 1) / 2
    return image, corners.tolist(), transforms.to(device)


def opencv_area(image, corners, shrink):
    """INTER_AREA, the mean over the pixels; with as many threads as torch."""
    cv2 = pytest.importorskip("cv2")
    cv2.setNumThreads(torch.get_num_threads())
    pixels, (height, width) = image[0].numpy(), SHRUNK[2:]
    patches = torch.empty(len(corners), height, width, 3, dtype=torch.uint8)
    for patch, (x, y) in zip(patches.numpy(), corners, strict=True):
        part = pixels[y : y + shrink * height, x : x + shrink * width]
        cv2.resize(part, (width, height), dst=patch, interpolation=cv2.INTER_AREA)
    return patches.permute(0, 3, 1, 2).float()


def interpolate(image, corners, shrink):
    """torch's antialiased filter on bytes: a triangle, twice as wide as the mean."""
    pixels, (height, width) = image.permute(0, 3, 1, 2), SHRUNK[2:]
    parts = [pixels[..., y : y + shrink * height, x : x + shrink * width] for x, y in corners]
    return torch.cat([F.interpolate(part, SHRUNK[2:], mode="bilinear", antialias=True) for part in parts]).float()


@pytest.mark.parametrize("shrink", (2, 4, 8))
@pytest.mark.parametrize("row", ("op", "op, planar", "opencv, area", "interpolate"))
def test_shrunk_crops(measure, device, row, shrink):
    """Without normalisation, which the peers would pay for apart."""
    if device.type == "cuda" and "op" not in row.split(", "):
        pytest.skip("runs on the CPU only")
    torch.manual_seed(0)
    image, corners, transforms = shrunk_by(shrink, device)
    expected = opencv_area(image, corners, shrink)  # the mean over the same pixels, rounded
    call = {"opencv, area": opencv_area, "interpolate": interpolate}.get(row)
    if call is None:
        planes = image.permute(0, 3, 1, 2)
        planes = planes.contiguous() if "planar" in row else planes
        run = lambda: crop_patches(planes, transforms, SHRUNK[2:], antialias=True)  # noqa: E731
    else:
        run = partial(call, image, corners, shrink)

    def same(actual):
        assert (actual - expected).abs().max() <= 0.51

    nbytes = 4 * bench_tools.pixels(SHRUNK)
    shape = (*SHRUNK, f"shrink {shrink}")
    measure(
        Rotating(run, tuple, device, nbytes), "crop_patches", shape, "forward", row, device, nbytes,
        same if "op" in row.split(", ") else None,
    )  # fmt: skip


@pytest.mark.parametrize("row", ROWS)
def test_crops(measure, device, row):
    if device.type == "cuda" and "opencv" in row:
        pytest.skip("runs on the CPU only")
    torch.manual_seed(0)
    source, transforms = image_of(device), transforms_of(CROPS[0], CROPS[2:], (720, 1280), device)
    expected = op(source, transforms)
    if row == "op, planar":
        source = source.permute(0, 3, 1, 2).contiguous()
    tolerance = 1.5 / min(STD) if "opencv" in row else 5e-3

    def same(actual):
        assert (actual.float() - expected).abs().max() <= tolerance

    nbytes = 4 * bench_tools.pixels(CROPS)
    call = ROWS[row]
    run = Rotating(lambda *inputs: call(*inputs), lambda: (source.clone(), transforms.clone()), device, nbytes)
    measure(run, "crop_patches", CROPS, "forward", row, device, nbytes, None if "antialias" in row else same)


@pytest.mark.parametrize("row", ("op, bicubic", "grid_sample, bicubic", "opencv, bicubic"))
def test_bicubic(measure, device, row):
    """Upright crops that enlarge, as those of Sapiens2."""
    if device.type == "cuda" and "opencv" in row:
        pytest.skip("runs on the CPU only")
    torch.manual_seed(0)
    source = image_of(device)
    center = 200 + torch.rand(CROPS[0], 2) * torch.tensor([880.0, 320.0])
    scale = (60 + 100 * torch.rand(CROPS[0], 1)) * torch.tensor([0.75, 1.0])
    transforms = geometry.box_to_transform(center, scale, torch.zeros(CROPS[0]), CROPS[2:]).to(device)
    expected = op(source, transforms, mode="bicubic")

    def same(actual):
        assert (actual - expected).abs().max() <= 5e-3

    calls = {"op": partial(op, mode="bicubic"), "grid_sample": partial(grid_sample, mode="bicubic")}
    call = calls.get(row.split(",")[0], partial(opencv, cubic=True))
    nbytes = 4 * bench_tools.pixels(CROPS)
    run = Rotating(lambda *inputs: call(*inputs), lambda: (source.clone(), transforms.clone()), device, nbytes)
    measure(run, "crop_patches", CROPS, "forward", row, device, nbytes, None if "opencv" in row else same)


@pytest.mark.parametrize("row", ("floor", "floor, allocated"))
def test_crops_floor(measure, device, row):
    nbytes = 4 * bench_tools.pixels(CROPS)
    if row == "floor":
        run = Rotating(lambda out: out.fill_(0.5), lambda: (torch.empty(CROPS, device=device),), device, nbytes)
    else:
        run = Rotating(lambda: torch.full(CROPS, 0.5, device=device), tuple, device, nbytes)
    measure(run, "crop_patches", CROPS, "forward", row, device, nbytes)


@pytest.mark.parametrize("row", ("op", "floor"))
def test_cascade(measure, device, row):
    torch.manual_seed(0)
    nbytes = 4 * bench_tools.pixels(CASCADE)
    if row == "floor":
        run = Rotating(lambda out: out.fill_(0.5), lambda: (torch.empty(CASCADE, device=device),), device, nbytes)
    else:
        index = torch.arange(64, device=device).repeat_interleave(14)

        def inputs():
            images = torch.randint(256, (64, 3, 240, 320), dtype=torch.uint8).to(device)
            return images, transforms_of(64 * 14, CASCADE[2:], (240, 320), device)

        run = Rotating(
            lambda p, t: crop_patches(p, t, CASCADE[2:], image_index=index, mean=MEAN, std=STD), inputs, device, nbytes
        )
    measure(run, "crop_patches", CASCADE, "forward", row, device, nbytes)


@pytest.mark.parametrize("row", ("op", "grid_sample"))
def test_feature_maps_backward(measure, device, row):
    """Forward and backward to the maps and the transforms."""
    torch.manual_seed(0)
    features = torch.rand(64, 256, 32, 24, device=device)
    transforms = transforms_of(64, MAPS[2:], (32, 24), device)
    weight = torch.rand(MAPS, device=device) - 0.5

    def step(features, transforms, weight):
        features, transforms = features.requires_grad_(), transforms.requires_grad_()
        if row == "op":
            out = crop_patches(features, transforms, MAPS[2:])
        else:
            out = F.grid_sample(features, grid_of(transforms, MAPS[2:], (32, 24)), align_corners=True)
        return torch.autograd.grad(out, (features, transforms), weight)

    nbytes = 4 * (bench_tools.pixels(MAPS) * 2 + 3 * features.numel())
    run = Rotating(step, lambda: (features.clone(), transforms.clone(), weight), device, nbytes)
    measure(run, "crop_patches", MAPS, "forward+backward", row, device, nbytes)


@pytest.mark.parametrize("row", ("op", "reference"))
def test_box_vote(measure, device, row):
    torch.manual_seed(0)
    shape = (1, 14, 240, 320)
    corner = torch.rand(2000, 2) * torch.tensor([280.0, 200.0])
    boxes = torch.cat([corner, corner + 39], -1).to(device)
    weights = torch.rand(2000, 14, device=device)
    expected = reference.box_vote(boxes, weights, shape[2:])
    call = {"op": box_vote, "reference": reference.box_vote}[row]

    def same(actual):
        torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-3)

    nbytes = 4 * bench_tools.pixels(shape)
    run = Rotating(lambda b, w: call(b, w, shape[2:]), lambda: (boxes.clone(), weights.clone()), device, nbytes)
    measure(run, "box_vote", shape, "forward", row, device, nbytes, same)
