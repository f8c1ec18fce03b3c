"""The decoders by hand-computed cases, by other libraries' formulas in numpy, OpenCV and SciPy, and by properties.

Named after the traps of the field: cases in which two libraries give different numbers for the same maps.
"""

import math

import numpy as np
import pytest
import torch
from map_inputs import gaussians, spots

from pypose_ops import codecs, decode_heatmaps, offset_heatmaps

NAN, INF = math.nan, math.inf
REFINES = (None, "quarter", "parabola", "dark", "dark_udp", "centroid")


def random_centers(batch, joints, height, width, border):
    extent = torch.tensor([width, height], dtype=torch.float64) - 1 - 2 * border
    return border + torch.rand(batch, joints, 2, dtype=torch.float64) * extent


def decode_one(maps, device, **options):
    return decode_heatmaps(maps.to(device), **options).coords.flatten().tolist()


# ---- Other libraries, from their formulas ----------------------------------------------------------------------------


def mmpose_blur(heatmap, size):
    cv2 = pytest.importorskip("cv2")
    reach = size // 2
    padded = np.pad(heatmap, reach)
    blurred = cv2.GaussianBlur(padded, (size, size), 0)[reach:-reach, reach:-reach]
    return blurred * heatmap.max() / blurred.max()


def legacy_blur(heatmap, size):
    return pytest.importorskip("cv2").GaussianBlur(heatmap, (size, size), 0)


def hf_blur(heatmap, size):
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(heatmap, sigma=0.8, radius=size // 2)


def udp_step(blurred, x, y):
    """UDP-DARK on one float64 map that is blurred already."""
    h = np.pad(np.log(np.clip(blurred, 1e-3, 50)), 1, mode="edge")
    x, y = x + 1, y + 1
    center = h[y, x]
    dx = 0.5 * (h[y, x + 1] - h[y, x - 1])
    dy = 0.5 * (h[y + 1, x] - h[y - 1, x])
    dxx = h[y, x + 1] - 2 * center + h[y, x - 1]
    dyy = h[y + 1, x] - 2 * center + h[y - 1, x]
    dxy = 0.5 * (h[y + 1, x + 1] - h[y, x + 1] - h[y + 1, x] + 2 * center - h[y, x - 1] - h[y - 1, x] + h[y - 1, x - 1])
    hessian = np.array([[dxx, dxy], [dxy, dyy]]) + 1.1920929e-07 * np.eye(2)
    return -np.linalg.solve(hessian, [dx, dy])


BLURS = {"mmpose": mmpose_blur, "mmpose0": legacy_blur, "hf": hf_blur}


@pytest.mark.parametrize("kernel_size", [3, 7, 11, 17])
@pytest.mark.parametrize("compat", BLURS)
def test_dark_udp_is_the_peers(device, compat, kernel_size):
    """Zero padding with the height restored, reflect-101, or reflect with sigma 0.8; up to the border."""
    maps = gaussians(random_centers(2, 8, 40, 31, border=0), 2.0, 40, 31)
    maps = maps + 0.01 * torch.rand_like(maps)
    coords = decode_heatmaps(maps.to(device), refine="dark_udp", compat=compat, kernel_size=kernel_size).coords.cpu()
    for heatmap, got in zip(maps.flatten(0, 1).numpy(), coords.flatten(0, 1).numpy(), strict=True):
        y, x = np.unravel_index(heatmap.argmax(), heatmap.shape)
        blurred = BLURS[compat](heatmap, kernel_size)
        if compat == "mmpose" and blurred[y, x] < 0.999 * blurred.max():
            continue  # the blur moved the maximum away: the one place where the height differs
        np.testing.assert_allclose(got, np.array([x, y]) + udp_step(blurred, x, y), atol=1e-6)


def test_the_peers_blurs_differ(device):
    maps = gaussians(torch.tensor([[[1.3, 10.2]]]), 2.0, 40, 31).to(device)
    found = {compat: decode_heatmaps(maps, refine="dark_udp", compat=compat).coords[0, 0, 0].item() for compat in BLURS}
    assert len({round(x, 3) for x in found.values()}) == 3


def test_steps_without_a_peak_are_minus_one_in_every_mode(device):
    """MMPose says -1 for DARK and NaN for UDP-DARK, HRNet 0."""
    for refine, parities in {"quarter": ("hrnet", "mmpose"), "dark": ("hrnet",), "dark_udp": tuple(BLURS)}.items():
        for compat in parities:
            for value in (0.0, -1.0, NAN):
                maps = torch.full((1, 1, 9, 8), value)
                assert decode_one(maps, device, refine=refine, compat=compat, missing=-1.0) == [-1, -1]


@pytest.mark.parametrize(
    ("peak", "mmpose", "hrnet"),
    [((1, 20), (1.0, 20.25), (1, 20)), ((20, 1), (20.25, 1.0), (20, 1)), ((5, 5), (5.25, 5.25), (5.25, 5.25))],
)
def test_quarter_next_to_the_border(device, peak, mmpose, hrnet):
    maps = (torch.arange(30.0)[:, None] + torch.arange(30.0))[None, None].clone()
    maps[0, 0, peak[1], peak[0]] = 100
    for compat, want in {None: mmpose, "mmpose": mmpose, "hrnet": hrnet, "mmpose0": hrnet}.items():
        assert decode_one(maps, device, refine="quarter", compat=compat) == list(want)


@pytest.mark.parametrize("refine", ["dark", "dark_udp"])
def test_compat_steps_wherever_the_peer_does(device, refine):
    """On noise MMPose moves most peaks by more than a pixel, some by a thousand; without compat none moves so far."""
    maps = torch.rand(16, 17, 24, 20).to(device)
    plain = decode_heatmaps(maps, refine=None).coords

    def steps(**options):
        return (decode_heatmaps(maps, refine=refine, **options).coords - plain).norm(dim=-1)

    assert (steps(compat="mmpose") > 1).float().mean() > 0.2
    assert steps().max() <= 1 + 1e-5
    assert steps(compat="mmpose", max_offset=0.5).max() <= 0.5 + 1e-5


@pytest.mark.parametrize("refine", REFINES)
def test_noise_never_moves_a_peak_further_than_max_offset(device, refine):
    maps = torch.randn(8, 17, 20, 18).to(device)
    plain = decode_heatmaps(maps, refine=None).coords
    assert (decode_heatmaps(maps, refine=refine).coords - plain).norm(dim=-1).max() <= 1 + 1e-5


@pytest.mark.parametrize("refine", REFINES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_layouts_and_types(device, refine, dtype):
    maps = gaussians(random_centers(2, 3, 20, 16, border=4), 2.0, 20, 16).to(dtype).to(device)
    want = decode_heatmaps(maps, refine=refine)
    for odd in (maps.contiguous(memory_format=torch.channels_last), maps.mT.contiguous().mT):
        assert torch.equal(decode_heatmaps(odd, refine=refine).coords, want.coords)


@pytest.mark.parametrize("refine", REFINES)
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (5, 1), (2, 2)], ids=str)
def test_small_maps_decode_to_their_pixel(device, refine, size):
    x, y = size[1] - 1, size[0] - 1
    assert decode_one(spots(*size, (x, y, 2.0)), device, refine=refine) == [x, y]


@pytest.mark.parametrize("refine", REFINES)
def test_a_hot_pixel_in_each_corner(device, refine):
    for x in (0, 11):
        for y in (0, 8):
            assert decode_one(spots(9, 12, (x, y, 1.0)), device, refine=refine) == [x, y]


# ---- parabola, centroid, sigma, covariance by hand -------------------------------------------------------------------


def test_parabola_by_hand(device):
    # 1 - 0.1 (x - 4.3)^2 - 0.2 (y - 2.8)^2 is its own parabola.
    x, y = torch.arange(9.0), torch.arange(7.0)[:, None]
    maps = (1 - 0.1 * (x - 4.3) ** 2 - 0.2 * (y - 2.8) ** 2)[None, None]
    assert decode_one(maps, device, refine="parabola") == pytest.approx([4.3, 2.8], abs=1e-5)
    assert decode_one(spots(5, 5, (2, 2, 1), (3, 2, 1)), device, refine="parabola") == [2.5, 2]
    assert decode_one(spots(5, 5, (2, 2, 1), (3, 2, NAN)), device, refine="parabola") == [2, 2]


def test_centroid_by_hand(device):
    # Weights 1 at (3, 3), 0.5 at (5, 3), 0.25 at (3, 4); the negative one and those outside of the window do not count.
    maps = spots(9, 9, (3, 3, 1), (5, 3, 0.5), (3, 4, 0.25), (2, 2, -5), (7, 7, 0.5), (4, 4, NAN))
    want = [3 + 2 * 0.5 / 1.75, 3 + 0.25 / 1.75]
    assert decode_one(maps, device, refine="centroid") == pytest.approx(want)
    assert decode_one(maps, device, refine="centroid", kernel_size=3) == pytest.approx([3, 3 + 0.25 / 1.25])
    assert decode_one(spots(4, 4, (0, 0, 1), (1, 0, 1)), device, refine="centroid") == [0.5, 0]


@pytest.mark.parametrize(
    ("sigma", "kernel_size"), [(0.5, 3), (1, 3), (1.25, 5), (1.5, 7), (2, 11), (2.5, 15), (3, 17), (4, 23), (99, 63)]
)
def test_kernel_of_a_sigma(device, sigma, kernel_size):
    maps = gaussians(random_centers(1, 4, 40, 40, border=10), 2.0, 40, 40).to(device)
    assert torch.equal(decode_heatmaps(maps, sigma=sigma).coords, decode_heatmaps(maps, kernel_size=kernel_size).coords)


@pytest.mark.parametrize("refine", ["dark", "dark_udp"])
def test_covariance_of_a_gaussian(device, refine):
    # Without blur the logarithm is the quadratic itself, for both kinds of differences.
    precision = torch.tensor([[0.4, 0.1], [0.1, 0.3]], dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(torch.arange(12.0), torch.arange(15.0), indexing="ij")[::-1], -1).double()
    distance = grid - torch.tensor([7.3, 5.9], dtype=torch.float64)
    maps = torch.exp(-0.5 * torch.einsum("yxi,ij,yxj->yx", distance, precision, distance))[None, None].to(device)
    peaks = decode_heatmaps(maps, refine=refine, kernel_size=1, return_covariance=True)
    assert peaks.coords.flatten().tolist() == pytest.approx([7.3, 5.9])
    torch.testing.assert_close(peaks.covariance[0, 0].cpu(), precision.inverse())
    rotation = torch.tensor([[[0.0, -2.0, 5.0], [3.0, 0.0, 1.0]]], dtype=torch.float64)
    turned = decode_heatmaps(
        maps, refine=refine, kernel_size=1, return_covariance=True, transform=rotation.to(device)
    ).covariance[0, 0]
    linear = rotation[0, :, :2]
    torch.testing.assert_close(turned.cpu(), linear @ precision.inverse() @ linear.T)


# ---- Offset maps -----------------------------------------------------------------------------------------------------


def test_offset_maps_by_hand(device):
    maps = torch.zeros(1, 3, 7, 9)
    maps[0, 0, 3, 4] = 1
    maps[0, 1, 3, 4], maps[0, 2, 3, 4] = 0.25, -0.125
    coords, scores = decode_heatmaps(maps.to(device), refine="offset", radius=4, kernel_size=1)
    assert coords.flatten().tolist() == [5.0, 2.5]
    assert scores.item() == pytest.approx(0.25)  # the middle tap of 3, squared
    assert decode_one(maps, device, refine="offset", radius=4, kernel_size=1, max_offset=0.0) == [4, 3]
    flipped = maps.flip(-1) * torch.tensor([1, -1, 1])[:, None, None]
    both = decode_one(maps, device, refine="offset", radius=4, kernel_size=1, flipped=flipped.to(device), flip_pairs=[])
    assert both == [5.0, 2.5]


def test_offset_maps_are_mmposes(device):
    cv2 = pytest.importorskip("cv2")
    maps = torch.rand(2, 9, 32, 24)
    coords, scores = decode_heatmaps(maps.to(device), refine="offset", radius=3.5, compat="mmpose", kernel_size=3)
    for b in range(2):
        for k in range(3):
            blurred = cv2.GaussianBlur(maps[b, 3 * k].double().numpy(), (7, 7), 0)
            y, x = np.unravel_index(blurred.argmax(), blurred.shape)
            want = np.array([x, y]) + 3.5 * maps[b, 3 * k + 1 : 3 * k + 3, y, x].numpy()
            np.testing.assert_allclose(coords[b, k].cpu(), want, atol=1e-5)
            assert scores[b, k].item() == pytest.approx(blurred.max(), abs=1e-6)


@pytest.mark.parametrize("side", ["width", "height"])
def test_offset_radius_is_of_the_longer_side(device, side):
    """MMPose 1.x takes max(W, H), 0.x the height: the radius is the caller's, and the codec takes 1.x's."""
    width, height = (64, 48) if side == "width" else (48, 64)
    codec = codecs.UDPHeatmap((4 * width, 4 * height), (width, height), "combined")
    assert codec.radius == 0.0546875 * 64
    centers = random_centers(2, 3, height, width, border=5).float()
    maps = offset_heatmaps(centers, codec.radius, (height, width)).to(device)
    coords = decode_heatmaps(maps, refine="offset", radius=codec.radius).coords
    torch.testing.assert_close(coords.cpu(), centers, rtol=0, atol=1e-4)


# ---- The codecs on top -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compat", [None, "mmpose"])
def test_udp_round_trip(device, compat):
    """MMPose's codec stretches by w / (w - 1); without compat encode and decode are inverse."""
    keypoints = 20 + torch.rand(2, 5, 2) * torch.tensor([150.0, 210.0])
    for kind in ("gaussian", "combined"):
        codec = codecs.UDPHeatmap((192, 256), (48, 64), kind, compat=compat)
        maps, _ = codec.encode(keypoints.to(device))
        coords = codec.decode(maps).coords.cpu()
        want = keypoints if compat is None else keypoints * torch.tensor([192 / 191, 256 / 255])
        assert (coords - want).abs().max() < 0.02


def test_simcc_round_trip(device):
    keypoints = 20 + torch.rand(2, 5, 2) * torch.tensor([150.0, 210.0])
    codec = codecs.SimCCLabel((192, 256), sigma=6.0, use_dark=True)
    (x, y), _ = codec.encode(keypoints.to(device))
    assert (codec.decode(x, y).coords.cpu() - keypoints).abs().max() < 0.26  # the label's centre is a rounded bin
