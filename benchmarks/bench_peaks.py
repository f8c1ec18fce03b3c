"""decode_heatmaps against one reduction over the same maps, torch and peers.  pytest benchmarks/bench_peaks.py"""

from functools import partial

import bench_tools
import mmpose_port
import pytest
import torch
from bench_tools import HEADLINE, SHAPES, Rotating, named

from pypose_ops import decode_heatmaps, reference

pytestmark = pytest.mark.benchmark(max_time=0.4, min_rounds=5, warmup=False)


def flat_max(maps):
    """What a torch user writes for a plain argmax."""
    scores, index = maps.flatten(2).max(-1)
    return torch.stack((index % maps.shape[-1], index // maps.shape[-1]), -1).float(), scores


def kornia_soft_argmax(maps):
    kornia = pytest.importorskip("kornia")
    return kornia.geometry.subpix.spatial_soft_argmax2d(maps, normalized_coordinates=False)


def numpy_port(decode):
    return lambda maps: tuple(torch.from_numpy(v) for v in decode(maps.cpu().numpy()))


OPS = {refine: partial(decode_heatmaps, refine=refine) for refine in ("none", "quarter", "dark")}
REFERENCES = {refine: partial(reference.decode_heatmaps, refine=refine) for refine in OPS}
SMALL = [SHAPES[0], HEADLINE]

# row -> (callable, what its coordinates are checked against, the shapes it runs at; None for all)
ROWS = {
    "floor": (lambda maps: maps.amax((-2, -1)), None, None),
    "op, none": (OPS["none"], REFERENCES["none"], None),
    "op, quarter": (OPS["quarter"], REFERENCES["quarter"], None),
    "op, dark": (OPS["dark"], REFERENCES["dark"], None),
    "reference, none": (REFERENCES["none"], None, None),
    "reference, dark": (REFERENCES["dark"], None, SMALL),
    "compile(reference), dark": ("compile", OPS["dark"], [HEADLINE]),
    "torch max, none": (flat_max, OPS["none"], None),
    "kornia soft-argmax": (kornia_soft_argmax, None, SMALL),
    "mmpose argmax (numpy port)": (numpy_port(mmpose_port.decode_argmax), OPS["none"], None),
    "mmpose quarter (numpy port)": (numpy_port(mmpose_port.decode_quarter), None, SMALL),
    "mmpose dark (numpy port)": (numpy_port(mmpose_port.decode_dark), partial(OPS["dark"], parity="mmpose"), SMALL),
}
CASES = [
    pytest.param(row, shape, id=f"{named(shape)}-{row}")
    for row, (_, _, only) in ROWS.items()
    for shape in SHAPES
    if only is None or shape in only
]


def maps_of(shape, device):
    """Blobs as a net draws them: of different heights, on a little noise."""
    batch, joints, height, width = shape
    center = 4 + torch.rand(batch, joints, 2, device=device) * torch.tensor([width - 9.0, height - 9.0], device=device)
    maps = reference.gaussian_heatmaps(center, 2.0, (height, width))
    return maps.mul_(0.5 + 0.5 * torch.rand(batch, joints, 1, 1, device=device)).add_(1e-3 * torch.rand_like(maps))


@pytest.mark.parametrize(("row", "shape"), CASES)
def test_decode(benchmark, measure, device, row, shape):
    call, check, _ = ROWS[row]
    if "numpy" in row:
        if device.type == "cuda":
            pytest.skip("runs on the CPU only")
        if "dark" in row:
            pytest.importorskip("cv2")
    if call == "compile":
        if benchmark.disabled:
            pytest.skip("torch.compile(reference) is only compiled to be timed: it holds none of our code")
        torch._dynamo.reset()
        call = torch.compile(REFERENCES["dark"], dynamic=False)
    torch.manual_seed(0)
    nbytes = 4 * bench_tools.pixels(shape)
    run = Rotating(call, lambda: (maps_of(shape, device),), device, nbytes)
    first = run.inputs[0][0]

    def same(actual):
        coords, scores = check(first[:8])  # the reference blurs whole maps: seconds for all of them
        torch.testing.assert_close(actual[0][:8], coords, rtol=1e-4, atol=2e-3)
        torch.testing.assert_close(actual[1][:8], scores, rtol=1e-4, atol=1e-5)

    measure(run, "decode_heatmaps", shape, "forward", row, device, nbytes, same if check else None)
