"""Other libraries' functions against those of pypose_ops under their names.  pytest benchmarks/bench_integrations.py

Those of MMPose are in bench_mmpose.py. Libraries that are not installed are skipped.
"""

import importlib
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from bench_tools import Rotating

from pypose_ops import reference
from pypose_ops.integrations import deeplabcut, rtmlib, sleap_nn, torchvision, transformers

pytestmark = pytest.mark.benchmark(max_time=0.4, min_rounds=3, warmup=False)
ROWS = pytest.mark.parametrize("row", ("op", "peer"))
# "floor": reading the input or writing the output once, by torch or numpy.
FLOORED = pytest.mark.parametrize("row", ("op", "peer", "floor"))
# Lets the libraries be imported beside a CPU build of torch; what it registers lives as long as this.
BESIDE = runpy.run_path(str(Path(__file__).parents[1] / "tests" / "integrations" / "conftest.py"))


def need(module):
    """The module; skips where it is not installed, or does not load beside this torch."""
    try:
        return importlib.import_module(module)
    except (ImportError, RuntimeError, AttributeError) as error:
        pytest.skip(f"{module}: {str(error).splitlines()[0]}")


def blobs(people, joints, size, sigma, noise, seed=0, animals=1):
    generator = torch.Generator().manual_seed(seed)
    at = torch.rand(people, animals, joints, 2, generator=generator) * (torch.tensor(size[::-1]) - 1)
    maps = reference.gaussian_heatmaps(at, sigma, size).float()
    return maps, noise * torch.rand(maps.shape, generator=generator)


def compare(measure, device, op, shape, row, calls, check):
    """Times ``calls[row]``; checks the results of ``calls["op"]`` against those of ``calls["peer"]``."""
    if device.type != "cpu":
        pytest.skip("the other libraries' functions are compared on a CPU")

    def same(actual):
        if row == "op":
            check(actual, calls["peer"]())

    measure(Rotating(calls[row], lambda: (), device, 0), op, shape, "forward", row, device, 0, same)


def close(atol, rtol=0.0):
    return lambda actual, expected: torch.testing.assert_close(
        actual, expected, atol=atol, rtol=rtol, equal_nan=True, check_dtype=False
    )


@FLOORED
@pytest.mark.parametrize("refinement", (None, "integral"))
def test_global_peaks(measure, device, row, refinement):
    theirs = need("sleap_nn.inference.ops.peaks").find_global_peaks
    maps, noise = blobs(8, 13, (192, 192), 1.5, 0.05)
    cms = 0.9 * maps + noise
    calls = {
        "op": lambda: sleap_nn.find_global_peaks(cms, 0.2, refinement),
        "peer": lambda: theirs(cms, 0.2, refinement),
        "floor": lambda: cms.amax((-2, -1)),
    }
    compare(measure, device, f"sleap-nn global peaks, {refinement}", (8, 13, 192, 192), row, calls, close(1e-4))


@FLOORED
@pytest.mark.parametrize("refinement", (None, "integral"))
@pytest.mark.parametrize("animals", (30, 100))
def test_local_peaks(measure, device, row, refinement, animals):
    theirs = need("sleap_nn.inference.ops.peaks").find_local_peaks
    maps, noise = blobs(4, 13, (192, 192), 1.5, 0.05, animals=animals)
    cms = 0.9 * maps + noise
    calls = {
        "op": lambda: sleap_nn.find_local_peaks(cms, 0.2, refinement),
        "peer": lambda: theirs(cms, 0.2, refinement),
        "floor": lambda: cms.amax((-2, -1)),
    }
    compare(measure, device, f"sleap-nn local peaks, {refinement}", (4, animals, 13, 192, 192), row, calls, close(1e-4))


@ROWS
def test_confidence_maps(measure, device, row):
    theirs = need("sleap_nn.data.confidence_maps").make_multi_confmaps
    grid, points = torch.arange(0, 384, 2.0), torch.rand(1, 10, 13, 2) * 380
    calls = {
        "op": lambda: sleap_nn.make_multi_confmaps(points, grid, grid, 3.0),
        "peer": lambda: theirs(points, grid, grid, 3.0),
    }
    compare(measure, device, "sleap-nn confidence maps", (10, 13, 192, 192), row, calls, close(1e-5))


@ROWS
@pytest.mark.parametrize("animals", (3, 10, 30))
def test_grouping(measure, device, row, animals):
    paf = need("sleap_nn.inference.ops.paf")
    generator = torch.Generator().manual_seed(0)
    nodes, grid = [str(i) for i in range(13)], torch.arange(0, 384, 4.0)
    scorer = paf.PAFScorer(part_names=nodes, edges=list(zip(nodes, nodes[1:], strict=False)), pafs_stride=4)
    at = 30 + torch.rand(4, animals, 1, 2, generator=generator) * 320
    at = (at + torch.randn(4, animals, 13, 2, generator=generator).cumsum(2) * 8).clamp(0, 380)
    fields = [sleap_nn.make_multi_pafs(grid, grid, a[:, :-1], a[:, 1:], 15.0).flatten(0, 1) for a in at]
    pafs = torch.stack(fields).permute(0, 2, 3, 1)  # as sleap-nn's layers give them
    values = list(torch.rand(4, animals * 13, generator=generator) / 2 + 0.5)
    arguments = pafs, [a.flatten(0, 1) for a in at], values, [torch.arange(13).repeat(animals)] * 4
    own = paf.PAFScorer.predict
    calls = {"op": lambda: sleap_nn.predict(scorer, *arguments), "peer": lambda: own(scorer, *arguments)}

    def check(actual, expected):
        for some, others in zip(actual[0], expected[0], strict=True):
            first, second = (sorted(people.nan_to_num(-1).flatten(1).tolist()) for people in (some, others))
            torch.testing.assert_close(torch.tensor(first), torch.tensor(second), rtol=0, atol=1e-4)

    compare(measure, device, "sleap-nn grouping", (4, animals, 13), row, calls, check)


@FLOORED
@pytest.mark.parametrize("animals", (1, 3))
@pytest.mark.parametrize("kind", ("gaussian", "plateau"))
def test_deeplabcut(measure, device, row, kind, animals):
    heatmap_targets = need("deeplabcut.pose_estimation_pytorch.models.target_generators.heatmap_targets")
    generator = getattr(heatmap_targets, f"Heatmap{kind.title()}Generator")(
        num_heatmaps=12, pos_dist_thresh=17, label_keypoint_key="keypoints"
    )
    outputs = {"heatmap": torch.zeros(8, 12, 64, 64), "locref": torch.zeros(8, 24, 64, 64)}
    keypoints = torch.rand(8, animals, 12, 3, generator=torch.Generator().manual_seed(0)) * 512
    keypoints[..., 2] = 2

    def op():
        targets = deeplabcut.heatmap_targets(keypoints[..., :2], keypoints[..., 2], (64, 64), 8.0, kind=kind)
        return targets.heatmaps, targets.locref, targets.locref_weights

    def peer():
        heads = generator(8.0, outputs, {"keypoints": keypoints})
        return heads["heatmap"]["target"], heads["locref"]["target"], heads["locref"]["weights"]

    written = torch.empty(8, 5 * 12, 64, 64)
    calls = {"op": op, "peer": peer, "floor": written.zero_}
    compare(measure, device, f"DeepLabCut {kind} targets", (8, animals, 12, 64, 64), row, calls, close(1e-4, 1e-4))


@ROWS
@pytest.mark.parametrize("animals", (1, 3))
def test_deeplabcut_fields(measure, device, row, animals):
    pafs_targets = need("deeplabcut.pose_estimation_pytorch.models.target_generators.pafs_targets")
    graph = [(i, i + 1) for i in range(11)]
    generator = pafs_targets.PartAffinityFieldGenerator(graph, width=20.0)
    outputs = {"heatmap": torch.zeros(8, 12, 64, 64), "paf": torch.zeros(8, 22, 64, 64)}
    keypoints = torch.rand(8, animals, 12, 3, generator=torch.Generator().manual_seed(0)) * 512
    keypoints[..., 2] = 2
    labels = {generator.label_keypoint_key: keypoints}
    calls = {
        "op": lambda: deeplabcut.paf_targets(keypoints[..., :2], keypoints[..., 2], (64, 64), 8.0, graph, 20.0),
        "peer": lambda: generator(8.0, outputs, labels)["paf"]["target"],
    }
    compare(measure, device, "DeepLabCut fields", (8, animals, 11, 64, 64), row, calls, close(1e-4))


@FLOORED
@pytest.mark.parametrize("people,joints,size,sigma", ((64, 17, (64, 48), 2.0), (4, 308, (256, 192), 6.0)))
def test_post_processing(measure, device, row, people, joints, size, sigma):
    name = "ViTPose" if joints == 17 else "Sapiens2"
    module = need(f"transformers.models.{name.lower()}.image_processing_{name.lower()}")
    processor = getattr(module, "VitPoseImageProcessor" if joints == 17 else "Sapiens2ImageProcessor")()
    maps, noise = blobs(people, joints, size, sigma, 0.02)
    outputs, boxes = SimpleNamespace(heatmaps=0.9 * maps + noise), [[[20.0, 30.0, 90.0, 200.0]] * people]
    fast = transformers.fast_processor(processor)
    calls = {
        "op": lambda: fast.post_process_pose_estimation(outputs, boxes=boxes),
        "peer": lambda: processor.post_process_pose_estimation(outputs, boxes=boxes),
        "floor": lambda: outputs.heatmaps.amax((-2, -1)),
    }

    def check(actual, expected):
        for mine, other in zip(actual[0], expected[0], strict=True):
            torch.testing.assert_close(mine["keypoints"], other["keypoints"], rtol=0, atol=1e-3)

    compare(measure, device, f"transformers {name} poses", (people, joints, *size), row, calls, check)


@ROWS
def test_preprocessing(measure, device, row):
    module = need("transformers.models.vitpose.image_processing_vitpose")
    processor = module.VitPoseImageProcessor()
    fast = transformers.fast_processor(processor)
    image = np.random.default_rng(0).integers(0, 256, (720, 1280, 3), np.uint8)
    boxes = [[[20.0 + 10 * i, 30.0, 190.0, 400.0] for i in range(16)]]
    calls = {
        name: lambda p=p: p(image, boxes=boxes, return_tensors="pt").pixel_values
        for name, p in (("op", fast), ("peer", processor))
    }

    def check(actual, expected):  # scipy's crops are whole grey levels, and black outside of the image
        assert (actual - expected).abs().flatten()[::7].quantile(0.99) < 1.01 / 255 / 0.22

    compare(measure, device, "transformers ViTPose crops", (16, 3, 256, 192), row, calls, check)


@FLOORED
@pytest.mark.parametrize("joints", (17, 133))
def test_simcc(measure, device, row, joints):
    rtmpose = need("rtmlib.tools.pose_estimation.rtmpose")
    model = rtmpose.RTMPose.__new__(rtmpose.RTMPose)
    model.model_input_size, model.simcc_split_ratio, model.to_openpose = (192, 256), 2.0, False
    random = np.random.default_rng(0)
    x, y = (random.random((16, joints, n), np.float32) for n in (384, 512))
    center, scale = random.random((16, 2)) * 100, random.random((16, 2)) * 100

    def peer():
        parts = [model.postprocess([x[i : i + 1], y[i : i + 1]], center[i], scale[i]) for i in range(16)]
        return tuple(np.concatenate(part) for part in zip(*parts, strict=True))

    def check(actual, expected):
        for mine, other in zip(actual, expected, strict=True):
            np.testing.assert_allclose(mine, other, rtol=0, atol=1e-3)

    calls = {
        "op": lambda: rtmlib.postprocess(x, y, center, scale),
        "peer": peer,
        "floor": lambda: (x.argmax(-1), y.argmax(-1)),
    }
    compare(measure, device, "rtmlib SimCC decoding", (16, joints), row, calls, check)


@ROWS
@pytest.mark.parametrize("kind", ("peaks", "noise"))
def test_keypoint_rcnn(measure, device, row, kind):
    theirs = need("torchvision.models.detection.roi_heads").heatmaps_to_keypoints
    generator = torch.Generator().manual_seed(0)
    maps = blobs(50, 17, (56, 56), 2.5, 0.0)[0] * 12 - 4 + 0.3 * torch.randn(50, 17, 56, 56, generator=generator)
    maps = maps if kind == "peaks" else torch.randn(maps.shape, generator=generator)
    corner = torch.rand(50, 2, generator=generator) * 100
    rois = torch.cat((corner, corner + 50 + torch.rand(50, 2, generator=generator) * 150), 1)
    calls = {"op": lambda: torchvision.heatmaps_to_keypoints(maps, rois), "peer": lambda: theirs(maps, rois)}
    compare(measure, device, f"torchvision heatmaps_to_keypoints, {kind}", (50, 17, 56, 56), row, calls, close(1e-3))
