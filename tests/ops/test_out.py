"""``out=`` of the operators that draw."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pypose_ops import crop_patches, gaussian_heatmaps, limb_masks, offset_heatmaps, part_affinity_fields, simcc_labels

LIMBS = [(0, 1), (2, 1)]
DRAWS = {
    "gaussian_heatmaps": lambda points, **options: gaussian_heatmaps(points, 1.5, (9, 7), **options),
    "gaussian_heatmaps, truncated": lambda points, **options: gaussian_heatmaps(
        points, 1.5, (9, 7), truncate=2.0, **options
    ),
    "offset_heatmaps": lambda points, **options: offset_heatmaps(points, 2.0, (9, 7), **options),
    "part_affinity_fields": lambda points, **options: part_affinity_fields(points, LIMBS, 1.0, (9, 7), **options),
    "limb_masks": lambda points, **options: limb_masks(points, LIMBS, 1.0, (9, 7), **options),
    "crop_patches": lambda points, **options: crop_patches(
        torch.linspace(0, 1, 108, device=points.device).view(1, 3, 6, 6),
        points.mT,
        (9, 7),
        **options,
    ),
    "simcc_labels": lambda points, **options: simcc_labels(points, 2.0, (9, 7), center="exact", **options),
}


@pytest.fixture(params=DRAWS)
def draw(request):
    return DRAWS[request.param]


def points(device, requires_grad=False):
    generator = torch.Generator().manual_seed(0)
    return (torch.rand(2, 3, 2, generator=generator) * 7).to(device).requires_grad_(requires_grad)


def each(result):
    return result if isinstance(result, tuple) else (result,)


def filled(result, **options):
    """Tensors like the result, full of what must not be left."""
    full = tuple(torch.full_like(t, 7.0, **options) for t in each(result))
    return full if isinstance(result, tuple) else full[0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_same_is_drawn_into_it(draw, device, dtype):
    expected = draw(points(device), dtype=dtype)
    out = filled(expected)
    before = [t.data_ptr() for t in each(out)]
    versions = [t._version for t in each(out)]
    assert all(a is b for a, b in zip(each(draw(points(device), out=out)), each(out), strict=True))
    for got, want, place, version in zip(each(out), each(expected), before, versions, strict=True):
        assert torch.equal(got, want) and got.data_ptr() == place and got._version > version


def test_several_people_and_a_part_of_a_larger_tensor(device):
    crowd = torch.rand(2, 4, 3, 2, device=device) * 7
    frames = torch.full((5, 2, 3, 9, 7), 7.0, device=device)
    gaussian_heatmaps(crowd, 1.5, (9, 7), out=frames[3])
    assert torch.equal(frames[3], gaussian_heatmaps(crowd, 1.5, (9, 7)))
    assert (frames[[0, 1, 2, 4]] == 7).all()


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="stores past the caches are of x86-64")
def test_what_is_larger_than_the_caches(tmp_path):
    """Is written past them: the same values, in every type, at places that are not aligned."""
    files = [__file__, Path(__file__).with_name("test_instruction_sets.py")]
    chosen = "drawn_into or several_people or (test_operator and (gaussian_heatmaps or offset_heatmaps))"
    again = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *files, "-k", chosen]
    environment = os.environ | {"PYPOSE_OPS_CACHE_BYTES": "1"}
    run = subprocess.run(again, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0 and " passed" in run.stdout, run.stdout[-3000:]


def test_large_outputs():
    """The size of the output, which decides how it is written, changes no bit of it."""
    keypoints = torch.rand(512, 17, 2) * 60
    for draw in (
        lambda k, **o: gaussian_heatmaps(k, 2.0, (65, 47), **o),
        lambda k, **o: offset_heatmaps(k, 3.0, (33, 31), **o),
    ):
        parts = torch.cat([draw(some) for some in keypoints.split(8)])
        assert torch.equal(draw(keypoints), parts)
        assert torch.equal(draw(keypoints, out=torch.full_like(parts, 7.0)), parts)


def test_nothing_to_draw(draw, device):
    empty = draw(points(device)[:0])
    assert draw(points(device)[:0], out=filled(empty)) is not None


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda t: t[:1], "out must have size 2 in dimension 0"),
        (lambda t: t[0], "out must be as the output is"),
        (lambda t: t.double(), "out must be Float, got Double"),
        (lambda t: t.transpose(0, 1).contiguous().transpose(0, 1), "out must be contiguous"),
        (lambda t: t.cpu() if t.is_cuda else t.to("meta"), "out must be on the same device as the other tensors"),
    ],
)
def test_what_does_not_fit_is_refused(draw, device, change, match):
    out = filled(draw(points(device)))
    wrong = tuple(change(t) for t in each(out))
    wrong = wrong if isinstance(out, tuple) else wrong[0]
    with pytest.raises(ValueError, match=match):
        draw(points(device), dtype=torch.float32, out=wrong)


def test_only_tensors_are_drawn_into(draw, device):
    with pytest.raises(TypeError, match="out must be"):
        draw(points(device), out=[0.0])
    with pytest.raises(TypeError, match="out must be"):
        draw(points(device), out="maps")


def test_nothing_is_differentiated(draw, device):
    out = filled(draw(points(device)))
    wanting = points(device, requires_grad=True)
    with torch.no_grad():
        draw(wanting, out=out)
    for first, second in ((wanting, out), (points(device), filled(out, requires_grad=True))):
        if draw is DRAWS["limb_masks"] and first is wanting:
            continue  # has no derivative at all
        with pytest.raises(RuntimeError, match="out= has no derivative, and an argument requires a gradient"):
            draw(first, out=second)
    with pytest.raises(RuntimeError, match="out= has no derivative, and an argument has a tangent"):
        with torch.autograd.forward_ad.dual_level():
            draw(points(device), out=_with_tangent(out))


def _with_tangent(out):
    dual = tuple(torch.autograd.forward_ad.make_dual(t, torch.ones_like(t)) for t in each(out))
    return dual if isinstance(out, tuple) else dual[0]


def test_memory_is_not_shared(device):
    memory = torch.rand(4096, device=device)
    keypoints = memory[:12].view(2, 3, 2)
    with pytest.raises(ValueError, match="gaussian_heatmaps: out must not share memory"):
        gaussian_heatmaps(keypoints, 1.0, (9, 7), out=memory[11 : 11 + 378].view(2, 3, 9, 7))
    gaussian_heatmaps(keypoints, 1.0, (9, 7), out=memory[12 : 12 + 378].view(2, 3, 9, 7))
    both = torch.zeros(2, 3, 18, device=device)
    with pytest.raises(ValueError, match="simcc_labels: out must not share memory"):
        simcc_labels(points(device), 2.0, (9, 9), out=(both, both))


def test_what_has_no_memory_shares_none():
    memory = torch.rand(4096)
    keypoints = memory[:12].view(2, 3, 2)
    assert gaussian_heatmaps(keypoints[:0], 1.0, (9, 7), out=memory[5:5].view(0, 3, 9, 7)).numel() == 0
    apart = memory.view(-1, 2)[:12:2].view(2, 3, 2)  # up to element 21
    gaussian_heatmaps(apart, 1.0, (1, 1), out=memory[22:28].view(2, 3, 1, 1))
    with pytest.raises(ValueError, match="out must not share memory"):
        gaussian_heatmaps(apart, 1.0, (1, 1), out=memory[21:27].view(2, 3, 1, 1))
    out = torch.empty(2, 3, 9, 7, device="meta")
    assert gaussian_heatmaps(keypoints.to("meta"), 1.0, (9, 7), out=out) is out


def test_compiled(draw):
    expected = draw(points("cpu"))
    compiled = torch.compile(lambda p, out: draw(p, out=out), fullgraph=True, backend="aot_eager")
    out = filled(expected)
    result = compiled(points("cpu"), out)
    for got, drawn, want in zip(each(result), each(out), each(expected), strict=True):
        assert torch.equal(got, want) and torch.equal(drawn, want)


def test_nothing_is_differentiated_when_compiled(draw):
    """As without a compiler; not silently."""
    if draw is DRAWS["limb_masks"]:
        return  # has no derivative at all
    compiled = torch.compile(lambda p, out: draw(p, out=out), fullgraph=True, backend="aot_eager")
    out = filled(draw(points("cpu")))
    with pytest.raises(Exception, match="out= has no derivative"):
        compiled(points("cpu", requires_grad=True), out)
    with torch.no_grad():
        compiled(points("cpu", requires_grad=True), out)


def test_views_with_another_sign_are_refused(draw):
    """Their memory does not hold what they are."""
    out = filled(draw(points("cpu")))
    turned = tuple(torch._neg_view(t) for t in each(out))
    with pytest.raises(ValueError, match="out must not be a view with its sign changed"):
        draw(points("cpu"), out=turned if isinstance(out, tuple) else turned[0])


def test_vmap_is_refused(draw):
    outs = each(draw(points("cpu")))
    maps = torch.func.vmap(lambda p, *out: draw(p, out=out if len(out) > 1 else out[0]))
    with pytest.raises(RuntimeError, match="out= cannot be mapped by vmap"):
        maps(points("cpu").repeat(2, 1, 1, 1), *(t.repeat(2, *[1] * t.dim()) for t in outs))
