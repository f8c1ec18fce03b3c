"""The CPU kernels for every instruction set that this processor has, on rows of several vectors and a remainder.

They run for the widest; PYPOSE_OPS_SIMD keeps a process to less, in which the tests of the operators run once more.
"""

import os
import subprocess
import sys

import pytest
import torch
from op_contract import DTYPES, OpContract, Sample, contract_of

import pypose_ops
from pypose_ops import reference

LEVELS = ("baseline", "avx2", "avx512")
HEIGHT, WIDTH = 11, 37  # two vectors of 16 floats, four of 8, nine of 4, and more
SIZE = (HEIGHT, WIDTH)
LIMBS = [(0, 1), (1, 2), (2, 0)]
generator = torch.Generator().manual_seed(8)


def rand(*shape):
    return torch.rand(shape, generator=generator, dtype=torch.float64)


def points(*shape, size=SIZE):
    return rand(*shape, 2) * torch.tensor([size[1] - 1.0, size[0] - 1.0])


def blobs(sigma=2.0):
    return reference.gaussian_heatmaps(points(2, 3), sigma, SIZE, dtype=torch.float64) + 0.01 * rand(2, 3, *SIZE)


def peaks():
    coords = points(2, 3, 5)
    return pypose_ops.LocalPeaks(coords, coords[..., 0], torch.tensor([[5, 4, 3], [2, 5, 5]]))


def score_limbs(ops):
    def call(pafs, coords, counts, rule="openpose"):
        return ops.score_limbs(pafs, pypose_ops.LocalPeaks(coords, coords[..., 0], counts), LIMBS, rule=rule)

    return call


KEYPOINTS = ("keypoints",)
NOTHING = {"missing": -1.0}
ONE, CROWD = points(2, 3), points(2, 4, 3)
SPRINGS = torch.tensor([[1.0, -2.0, 0.3, 0.2], [-1.5, 0.5, 0.1, 0.4]])
LINES = (rand(2, 3, WIDTH), rand(2, 3, 2 * WIDTH))
UNARY = torch.where(rand(2, 3, *SIZE) < 0.2, rand(2, 3, *SIZE) + 0.1, 0.0)
EDGES = [(0, 0), (0, 1), (2, 1), (1, 2)]
FIELDS = (rand(2, 6, *SIZE) - 0.3, *(p for p in (peaks().coords, peaks().counts)))
PEOPLE = (points(2, 9, 17), points(2, 5, 17), 100 * rand(2, 5) + 50)


def samples(*calls, **common):
    """Samples of an operator from (arguments, options) or arguments alone."""
    calls = [c if isinstance(c, tuple) and len(c) == 2 and isinstance(c[1], dict) else (c, {}) for c in calls]
    return [Sample(str(i), args, options, **common) for i, (args, options) in enumerate(calls)]


DRAWN = {"dtype_argument": "dtype"}
# Operator: its samples, and what OpContract is told about it.
CASES = {
    "gaussian_heatmaps": (
        samples((ONE, 2.0, SIZE), ((ONE, 1.5, SIZE), {"truncate": 3.0}), (CROWD, 2.0, SIZE), grad=KEYPOINTS),
        DRAWN,
    ),
    "heatmap_mse_loss": (
        samples((blobs(), ONE, 2.0), (blobs(), CROWD, 2.0), grad=("pred", "keypoints")),
        {"maps": ("pred",)},
    ),
    "part_affinity_fields": (samples((CROWD, LIMBS, 1.5, SIZE), grad=KEYPOINTS), DRAWN),
    "limb_masks": (samples((CROWD, LIMBS, 1.5, SIZE)), DRAWN),
    "offset_heatmaps": (samples((ONE, 2.3, SIZE), (CROWD, 2.3, SIZE), grad=KEYPOINTS), DRAWN),
    "simcc_labels": (samples((ONE, 3.0, SIZE)), DRAWN),
    "decode_heatmaps": (
        samples(
            (blobs(),),
            ((blobs() - 1,), {"threshold": -2.0, "refine": None}),
            ((blobs(),), {"flipped": blobs(), "flip_pairs": [(0, 1)]}),
            ((blobs(),), {"refine": "offset", "radius": 3.0, "offsets": rand(2, 3, 2, *SIZE) - 0.5}),
        ),
        {"maps": ("heatmaps", "flipped", "offsets")},
    ),
    "find_peaks": (samples(((blobs(),), NOTHING), ((blobs(),), {"radius": 3} | NOTHING)), {"maps": ("heatmaps",)}),
    "soft_argmax": (samples((blobs(),), (blobs() - 1,), grad=("heatmaps",)), {"maps": ("heatmaps",)}),
    "decode_simcc": (samples(LINES), {"maps": ("x", "y")}),
    "crop_patches": (
        samples(
            (rand(2, 3, 23, 29), torch.tensor([[[0.6, 0.1, 2.0], [-0.1, 0.5, 3.0]]]).repeat(2, 1, 1).double(), SIZE),
            grad=("images",),
        ),
        {"maps": ("images",)} | DRAWN,
    ),
    "box_vote": (samples((37 * rand(2, 20, 4), rand(2, 20, 3), SIZE)), {"maps": ("weights",)}),
    "mrf_message_passing": (
        samples(
            (UNARY, rand(4, 7, 7) + 0.01, 0.1 * rand(4) + 0.01, EDGES),
            (UNARY, rand(4, 21, 41) + 0.01, 0.1 * rand(4) + 0.01, EDGES),
            grad=("unary", "prior", "bias"),
        ),
        {"maps": ("unary",)},
    ),
    "max_product": (samples((blobs(), LIMBS[:2], SPRINGS)), {"maps": ("unary",)}),
    "sum_product": (samples((blobs(), LIMBS[:2], SPRINGS), grad=("unary", "deformation")), {"maps": ("unary",)}),
    "oks": (samples(PEOPLE, grad=("pred",)), {}),
    "oks_nms": (samples((PEOPLE[0], rand(2, 9), 100 * rand(2, 9) + 50)), {}),
    "score_limbs": (samples((*FIELDS,), ((*FIELDS,), {"rule": "trt_pose"})), {"maps": ("pafs",)}),
}
HOST = {"group_people", "group_by_tags"}  # no vector code
CASES |= {name: None for name in reference.__all__ if name not in HOST | CASES.keys()}


def contract(name):
    if CASES[name] is None:  # no rows here: the samples of its own tests, one of which should be 17 wide or more
        return contract_of(name)
    found, options = CASES[name]
    ops = [score_limbs(o) if name == "score_limbs" else getattr(o, name) for o in (pypose_ops, reference)]
    members = dict(zip(("op", "reference"), map(staticmethod, ops), strict=True)) | {"samples": found}
    return type(name, (OpContract,), members | options)()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_operator(name, dtype):
    checks = contract(name)
    for sample in checks.samples:
        checks.test_matches_reference(torch.device("cpu"), dtype, sample)
        if sample.grad:
            checks.test_gradients_match_reference(torch.device("cpu"), dtype, sample)


def test_every_operator():
    assert set(CASES) == set(reference.__all__) - HOST


@pytest.mark.parametrize("level", LEVELS)
def test_narrower_instruction_sets(level, tmp_path):
    info = pypose_ops.build_info()
    widest = info["instruction_set"]
    if info["instruction_sets"] != "all":
        pytest.skip(f"this build has kernels for {widest} alone")
    if LEVELS.index(level) > LEVELS.index(widest):
        pytest.skip(f"this processor has {widest} at most")
    show = "import pypose_ops; print(pypose_ops.build_info()['instruction_set'])"
    environment = os.environ | {"PYPOSE_OPS_SIMD": level}
    shown = subprocess.check_output([sys.executable, "-c", show], env=environment, text=True, cwd=tmp_path)
    assert shown.strip() == level
    if level != widest:
        again = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", __file__, "-k", "test_operator"]
        run = subprocess.run(again, env=environment, capture_output=True, text=True, cwd=tmp_path)
        assert run.returncode == 0, run.stdout[-3000:]
