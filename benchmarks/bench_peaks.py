"""The decoders against a reduction of the same maps, torch and other libraries.  pytest benchmarks/bench_peaks.py"""

from functools import partial

import bench_tools
import mmpose_port
import pytest
import torch
from bench_tools import HEADLINE, SHAPES, Rotating, named

from pypose_ops import decode_heatmaps, decode_simcc, find_peaks, reference, soft_argmax

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


OPS = {refine: partial(decode_heatmaps, refine=refine) for refine in (None, "quarter", "dark", "dark_udp")}
REFERENCES = {refine: partial(reference.decode_heatmaps, refine=refine) for refine in OPS}
MMPOSE = {refine: partial(decode_heatmaps, refine=refine, compat="mmpose") for refine in ("dark", "dark_udp")}
SMALL = [SHAPES[0], HEADLINE]

# row -> (callable, what its coordinates are checked against, the shapes it runs at; None for all)
ROWS = {
    "floor": (lambda maps: maps.amax((-2, -1)), None, None),
    "op, none": (OPS[None], REFERENCES[None], None),
    "op, quarter": (OPS["quarter"], REFERENCES["quarter"], None),
    "op, dark": (OPS["dark"], REFERENCES["dark"], None),
    "op, dark_udp": (OPS["dark_udp"], REFERENCES["dark_udp"], None),
    "reference, none": (REFERENCES[None], None, None),
    "reference, dark": (REFERENCES["dark"], None, SMALL),
    "compile(reference), dark": ("compile", OPS["dark"], [HEADLINE]),
    "onnx, dark": ("onnx", OPS["dark"], [HEADLINE]),
    "onnx, reference, dark": ("onnx", REFERENCES["dark"], [HEADLINE]),
    "torch max, none": (flat_max, OPS[None], None),
    "kornia soft-argmax": (kornia_soft_argmax, None, SMALL),
    "mmpose argmax (numpy port)": (numpy_port(mmpose_port.decode_argmax), OPS[None], None),
    "mmpose quarter (numpy port)": (numpy_port(mmpose_port.decode_quarter), None, SMALL),
    "mmpose dark (numpy port)": (numpy_port(mmpose_port.decode_dark), MMPOSE["dark"], SMALL),
    "mmpose dark_udp (numpy port)": (numpy_port(mmpose_port.decode_dark_udp), MMPOSE["dark_udp"], SMALL),
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


def onnx_runtime(call, maps, folder):
    """The call exported for any batch, and run by ONNX Runtime with as many threads as torch has."""
    onnxruntime = pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("pypose_ops.onnx")

    class Decoded(torch.nn.Module):
        def forward(self, maps):
            return tuple(call(maps))

    sizes = ({0: torch.export.Dim.DYNAMIC},)
    path = onnx.export(Decoded(), (maps[:2],), folder / "maps.onnx", input_names=["maps"], dynamic_shapes=sizes)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda maps: tuple(map(torch.from_numpy, session.run(None, {"maps": maps.numpy()})))


@pytest.mark.parametrize(("row", "shape"), CASES)
def test_decode(benchmark, measure, device, row, shape, tmp_path):
    call, check, _ = ROWS[row]
    if "numpy" in row or "onnx" in row:
        if device.type == "cuda":
            pytest.skip("runs on the CPU only")
        if "numpy" in row and "dark" in row:
            pytest.importorskip("cv2")
    if "reference" in row and isinstance(call, str) and benchmark.disabled:
        pytest.skip("the reference is only compiled or exported to be timed: that holds none of our code")
    if call == "onnx":
        call = onnx_runtime(check, maps_of(shape, device), tmp_path)
    if call == "compile":
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


def max_pool_peaks(maps, max_peaks=32, threshold=0.1):
    """What torch users write for several peaks: all ties are kept, no plateau is one."""
    kept = maps * ((maps == torch.nn.functional.max_pool2d(maps, 3, 1, 1)) & (maps > threshold))
    scores, index = kept.flatten(2).topk(max_peaks)
    return torch.stack((index % maps.shape[-1], index // maps.shape[-1]), -1).float(), scores


FIND_ROWS = {
    "floor": (lambda maps: maps.amax((-2, -1)), False),
    "op": (find_peaks, True),
    "op, dark": (partial(find_peaks, refine="dark"), False),
    "torch max_pool2d, topk": (max_pool_peaks, False),
}


@pytest.mark.parametrize("row", FIND_ROWS)
def test_find_peaks(benchmark, measure, device, row):
    """Radius 1, 32 peaks."""
    call, checked = FIND_ROWS[row]
    torch.manual_seed(0)
    nbytes = 4 * bench_tools.pixels(HEADLINE)
    run = Rotating(call, lambda: (maps_of(HEADLINE, device),), device, nbytes)

    def same(actual):
        for a, e in zip(actual, reference.find_peaks(run.inputs[0][0][:2]), strict=True):
            torch.testing.assert_close(a[:2], e, equal_nan=True)

    measure(run, "find_peaks", HEADLINE, "forward", row, device, nbytes, same if checked else None)


SOFT_ROWS = {
    "floor": lambda maps: maps.amax((-2, -1)),
    "op": soft_argmax,
    "op, window 9": partial(soft_argmax, window=9),
    "reference": reference.soft_argmax,
    "kornia": kornia_soft_argmax,
}


@pytest.mark.parametrize("direction", ("forward", "forward+backward"))
@pytest.mark.parametrize("row", SOFT_ROWS)
def test_soft_argmax(benchmark, measure, device, row, direction):
    call, backward = SOFT_ROWS[row], direction != "forward"
    if backward and row == "floor":
        pytest.skip("a reduction has no backward to compare with")
    torch.manual_seed(0)
    nbytes = (3 if backward else 1) * 4 * bench_tools.pixels(HEADLINE)

    def both(maps):
        coords = call(maps)
        return coords.detach(), *torch.autograd.grad(coords.sum(), maps)

    def inputs():
        return (maps_of(HEADLINE, device).requires_grad_(backward),)

    run = Rotating(both if backward else call, inputs, device, nbytes)

    def same(actual):
        coords = actual[0] if backward else actual
        torch.testing.assert_close(
            coords[:4], reference.soft_argmax(run.inputs[0][0][:4]).detach(), rtol=1e-4, atol=1e-3
        )

    measure(run, "soft_argmax", HEADLINE, direction, row, device, nbytes, same if row in ("op", "kornia") else None)


SIMCC_SHAPE = (64, 17, 384, 512)  # bins of x and of y


@pytest.mark.parametrize("row", ("floor", "op, none", "op, dark", "reference, dark"))
def test_decode_simcc(benchmark, measure, device, row):
    batch, joints, wide, high = SIMCC_SHAPE
    call = {
        "floor": lambda x, y: (x.amax(-1), y.amax(-1)),
        "op, none": decode_simcc,
        "op, dark": partial(decode_simcc, refine="dark"),
        "reference, dark": partial(reference.decode_simcc, refine="dark"),
    }[row]
    torch.manual_seed(0)

    def axis(bins):
        center = 30 + (bins - 60) * torch.rand(batch, joints, 1, device=device)
        return torch.exp(-((torch.arange(bins, device=device) - center) ** 2) / 72)

    nbytes = 4 * batch * joints * (wide + high)
    run = Rotating(call, lambda: (axis(wide), axis(high)), device, nbytes)
    expected = reference.decode_simcc(*run.inputs[0], refine="dark")

    def same(actual):
        torch.testing.assert_close(actual.coords, expected.coords, rtol=1e-4, atol=2e-3, equal_nan=True)

    measure(run, "decode_simcc", SIMCC_SHAPE, "forward", row, device, nbytes, same if row == "op, dark" else None)
