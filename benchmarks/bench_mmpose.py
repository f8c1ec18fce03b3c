"""Encoding as MMPose does, against MMPose, one person and 64 at a time.  pytest benchmarks/bench_mmpose.py

The floor is writing zeros to targets of the same size that exist already.
"""

import numpy as np
import pytest
import torch
from bench_tools import Rotating

peers = pytest.importorskip("mmpose.codecs", exc_type=ImportError)

from pypose_ops.integrations import mmpose as ours  # noqa: E402

pytestmark = pytest.mark.benchmark(max_time=0.4, min_rounds=5, warmup=False)
GRID = {"input_size": (192, 256), "heatmap_size": (48, 64)}
CODECS = {
    "msra": ("MSRAHeatmap", GRID | {"sigma": 2}),
    "msra, sigma 1.5": ("MSRAHeatmap", GRID | {"sigma": 1.5}),
    "dark": ("MSRAHeatmap", GRID | {"sigma": 2, "unbiased": True}),
    "udp": ("UDPHeatmap", GRID),
    "combined": ("UDPHeatmap", GRID | {"heatmap_type": "combined"}),
    "megvii": ("MegviiHeatmap", GRID | {"kernel_size": 11}),
    "regression": ("RegressionLabel", {"input_size": (192, 256)}),
    "integral": ("IntegralRegressionLabel", GRID | {"sigma": 2.0}),
    "simcc": ("SimCCLabel", {"input_size": (192, 256), "sigma": (4.9, 5.66)}),
}


@pytest.mark.parametrize("people", (1, 64))
@pytest.mark.parametrize("row", ("op", "mmpose", "floor"))
@pytest.mark.parametrize("name", CODECS)
def test_encode(measure, device, name, row, people):
    if device.type != "cpu":
        pytest.skip("MMPose encodes on the CPU")
    codec, options = CODECS[name]
    theirs, mine = getattr(peers, codec)(**options), getattr(ours, codec)(**options)
    random = np.random.default_rng(0)
    keypoints = (random.random((people, 17, 2)) * (191, 255)).astype(np.float32)
    visible = np.ones((people, 17), np.float32)

    def loop(keypoints, visible):
        return [theirs.encode(keypoints[i : i + 1], visible[i : i + 1]) for i in range(people)]

    targets = mine.codec.encode(torch.from_numpy(keypoints))[0]
    written = [torch.empty_like(t) for t in (targets if isinstance(targets, tuple) else (targets,))]
    rows = {
        "op": mine.encode if people == 1 else mine.codec.encode,
        "mmpose": loop,
        "floor": lambda *_: [t.zero_() for t in written],
    }
    arguments = (
        (keypoints, visible) if row == "mmpose" or people == 1 else tuple(map(torch.from_numpy, (keypoints, visible)))
    )
    run = Rotating(rows[row], lambda: arguments, device, 0)

    def same(actual):
        if row != "op":
            return
        if people == 1:
            weights, first = actual["keypoint_weights"], actual[mine.outputs[0]]
        else:
            targets, weights = actual
            first = targets[0] if isinstance(targets, tuple) else targets
        expected = loop(keypoints, visible)
        wanted = np.stack([e[mine.outputs[0]] for e in expected]).reshape(first.shape)
        np.testing.assert_allclose(first, wanted, rtol=0, atol=1e-5 * wanted.max())
        np.testing.assert_array_equal(weights, np.concatenate([e["keypoint_weights"] for e in expected]))

    measure(run, f"mmpose {name}.encode", (people, 17), "forward", row, device, 0, same)
