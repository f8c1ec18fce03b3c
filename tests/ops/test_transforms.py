"""torch.func, forward mode and errors: what every wrapper gets from the one function that calls the operators."""

import pytest
import torch
from contract_tools import only_on
from torch.autograd import forward_ad

from pypose_ops import (
    box_vote,
    crop_patches,
    decode_heatmaps,
    decode_simcc,
    find_peaks,
    gaussian_heatmaps,
    group_by_tags,
    group_people,
    heatmap_mse_loss,
    limb_masks,
    max_product,
    mrf_message_passing,
    offset_heatmaps,
    oks,
    oks_nms,
    part_affinity_fields,
    reference,
    score_limbs,
    simcc_labels,
    soft_argmax,
    sum_product,
)

# Each a function of one float64 tensor, smooth at this value.
POINTS = torch.tensor([[[2.3, 3.1], [6.2, 4.9]]], dtype=torch.float64)
MAPS = torch.rand(1, 2, 7, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
SPRINGS = torch.tensor([[1.2, 0.7, 0.3, 0.2]], dtype=torch.float64)
PRIOR = torch.rand(2, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
BIAS = torch.full((2,), 1e-2, dtype=torch.float64)
CROP = torch.tensor([[[1.1, 0.1, 0.43], [-0.2, 0.9, 1.37]]], dtype=torch.float64)
BOXES = torch.tensor([[0.0, 0.0, 3.0, 3.0], [2.0, 1.0, 5.0, 4.0]], dtype=torch.float64)
WIDE = {"dtype": torch.float64}
CASES = {
    "gaussian_heatmaps": (lambda p: gaussian_heatmaps(p, 1.5, (7, 8), truncate=2.9, **WIDE), POINTS),
    "gaussian_heatmaps, sigma": (lambda s: gaussian_heatmaps(POINTS, s, (7, 8), normalize="sum", **WIDE), POINTS / 2),
    "gaussian_heatmaps, people": (
        lambda p: gaussian_heatmaps(p[None], 1.5, (7, 8), combine="sum", **WIDE),
        POINTS,
    ),
    "heatmap_mse_loss": (lambda m: heatmap_mse_loss(m, POINTS, 1.5), MAPS),
    "heatmap_mse_loss, keypoints": (lambda p: heatmap_mse_loss(MAPS, p, 1.5, reduction="none"), POINTS),
    "part_affinity_fields": (lambda p: part_affinity_fields(p, [(0, 1)], 1.6, (7, 8), **WIDE), POINTS),
    "offset_heatmaps": (lambda p: offset_heatmaps(p, 2.0, (7, 8), **WIDE), POINTS),
    "simcc_labels": (
        lambda p: torch.cat(simcc_labels(p, 2.0, (7, 9), split_ratio=1.5, center="exact", **WIDE), -1),
        POINTS,
    ),
    "crop_patches, images": (lambda m: crop_patches(m, CROP, (4, 3), mean=0.3, std=0.5), MAPS),
    "crop_patches, a list": (lambda m: crop_patches([m[0], m[0, :, 1:]], CROP.expand(2, 2, 3), (4, 3)), MAPS),
    "crop_patches, transforms": (lambda t: crop_patches(MAPS, t, (4, 3), antialias=True), CROP),
    "box_vote": (lambda w: box_vote(BOXES, w, (5, 6)), MAPS[0, :, 0]),
    "mrf_message_passing": (lambda m: mrf_message_passing(m, PRIOR, BIAS, [(0, 1), (1, 0)]), MAPS),
    "mrf_message_passing, prior": (lambda p: mrf_message_passing(MAPS, p, BIAS, [(0, 1), (1, 0)]), PRIOR),
    "max_product": (lambda m: max_product(m, [(0, 1)], SPRINGS)[1], MAPS),
    "sum_product": (lambda m: sum_product(m, [(0, 1)], SPRINGS)[0], MAPS),
    "sum_product, springs": (lambda s: sum_product(MAPS, [(0, 1)], s)[1], SPRINGS),
    "soft_argmax": (lambda m: soft_argmax(m, temperature=3.0), MAPS),
    "oks": (lambda p: oks(p, POINTS + 0.3, torch.tensor([9.0]), sigmas=[0.5, 0.4]), POINTS),
}


def cases(test):
    """On every case; on kernels that take tensors of the CPU, as the cases' constants are."""
    return only_on("cpu", "simt")(pytest.mark.parametrize("name", CASES)(test))


def jacobian(function, x):
    """Row by row, by backward()."""
    return torch.autograd.functional.jacobian(function, x)


@cases
def test_reverse_mode(device, name):
    function, x = CASES[name]
    expected = jacobian(function, x)
    assert expected.abs().sum() > 0
    torch.testing.assert_close(torch.func.jacrev(function)(x), expected)
    gradient = torch.func.grad(lambda x: function(x).square().sum())(x)
    leaf = x.clone().requires_grad_()
    torch.testing.assert_close(gradient, torch.autograd.grad(function(leaf).square().sum(), leaf)[0])


@cases
def test_forward_mode(device, name):
    function, x = CASES[name]
    tangent = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(2))
    primal = function(x)
    expected = (jacobian(function, x).flatten(primal.dim()) * tangent.flatten()).sum(-1)
    with forward_ad.dual_level():
        value, found = forward_ad.unpack_dual(function(forward_ad.make_dual(x, tangent)))
    torch.testing.assert_close(value, primal)
    torch.testing.assert_close(found, expected)
    value, found = torch.func.jvp(function, (x,), (tangent,))
    torch.testing.assert_close(value, primal)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.func.jacfwd(function)(x), jacobian(function, x))


@cases
def test_vmap(device, name, recwarn):
    function, x = CASES[name]
    batch = torch.stack([x, 0.95 * x, 1.03 * x], 1)
    values = torch.func.vmap(function, in_dims=1)(batch)
    torch.testing.assert_close(values, torch.stack([function(x) for x in batch.unbind(1)]))
    of_one = torch.func.grad(lambda x: function(x).square().sum())
    gradients = torch.func.vmap(of_one, in_dims=1)(batch)
    torch.testing.assert_close(gradients, torch.stack([of_one(x) for x in batch.unbind(1)]))
    assert not [w for w in recwarn if "performance drop" in str(w.message)]


LIBRARY = sorted(name for name in torch._C._dispatch_get_all_op_names() if name.startswith("pypose_ops::"))


@pytest.mark.parametrize("name", LIBRARY)
def test_every_operator_has_a_rule_for_vmap(name):
    """Without one torch maps by a fallback that asks to file an issue with torch."""
    assert torch._C._dispatch_has_kernel_for_dispatch_key(name, "FuncTorchBatched")


def test_vmap_of_what_has_no_derivative(device):
    maps = torch.rand(3, 2, 2, 9, 8, generator=torch.Generator().manual_seed(4)).to(device)
    peaks = find_peaks(maps.flatten(0, 1), threshold=0.5, max_peaks=5)
    fields, tags = maps.flip(-1), maps.flip(-2)
    points = 9 * maps[..., 0, :4].unflatten(-1, (2, 2))
    turned = torch.tensor([[[0.5, 0.0, 1.0], [0.0, 2.0, 3.0]], [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]], device=device)
    peaks = type(peaks)(*(t.unflatten(0, (3, 2)) for t in peaks))
    limbs = torch.stack([score_limbs(f, type(peaks)(*p), [(0, 1)]) for f, *p in zip(fields, *peaks, strict=True)])
    bins = maps.flatten(-2)

    def calls(m, f, t, k, s, b, *p):
        p = type(peaks)(*p)
        return (
            *decode_heatmaps(m, refine="dark", transform=turned)[:2], *find_peaks(m, max_peaks=3),
            *decode_simcc(b, b, split_ratio=1.0), score_limbs(f, p, [(0, 1)]),
            *group_people(p, s, [(0, 1)], min_joints=1)[:3], *group_by_tags(p, t)[:3],
            *oks_nms(k, k[..., 0, 0], k[..., 0, 0] + 9, sigmas=[0.1, 0.1]),
        )  # fmt: skip

    arguments = (maps, fields, tags, points, limbs, bins, *peaks)
    found = torch.func.vmap(calls)(*arguments)
    for value, *entries in zip(found, *(calls(*entry) for entry in zip(*arguments, strict=True)), strict=True):
        torch.testing.assert_close(value, torch.stack(entries), equal_nan=True)


def test_vmap_of_masks_and_of_two_arguments(device):
    points = torch.stack([POINTS, POINTS + 1]).to(device)
    masks = torch.func.vmap(lambda p: limb_masks(p, [(0, 1)], 1.5, (7, 8)))(points)
    assert torch.equal(masks[1], limb_masks(points[1], [(0, 1)], 1.5, (7, 8)))
    visible = torch.tensor([[True, False], [False, True]], device=device)
    maps = torch.func.vmap(lambda v: gaussian_heatmaps(points[0], 1.5, (7, 8), visible=v))(visible)
    assert (maps.amax((-2, -1)) > 0).tolist() == [[[True, False]], [[False, True]]]


def test_hessian_by_forward_over_reverse():
    def energy(points):
        return gaussian_heatmaps(points, 1.5, (7, 8), dtype=torch.float64).square().sum()

    found = torch.func.hessian(energy)(POINTS)
    step = 1e-5 * torch.eye(POINTS.numel(), dtype=torch.float64).reshape(-1, *POINTS.shape)
    gradient = torch.func.grad(energy)
    columns = torch.stack([(gradient(POINTS + s) - gradient(POINTS - s)) / 2e-5 for s in step], -1)
    torch.testing.assert_close(found.reshape(4, 4), columns.reshape(4, 4), rtol=1e-6, atol=1e-7)


def test_double_backward_is_refused_by_name_under_transforms():
    def energy(points):
        return gaussian_heatmaps(points, 1.5, (7, 8), dtype=torch.float64).square().sum()

    with pytest.raises(RuntimeError, match="gaussian_heatmaps: double backward is not supported"):
        torch.func.jacrev(torch.func.grad(energy))(POINTS)


def test_maps_have_the_dtype_of_the_keypoints():
    for dtype in (torch.float32, torch.float64):
        points = POINTS.to(dtype)
        maps = [
            gaussian_heatmaps(points, 1.5, (7, 8)),
            part_affinity_fields(points, [(0, 1)], 1.5, (7, 8)),
            limb_masks(points, [(0, 1)], 1.5, (7, 8)),
            offset_heatmaps(points, 1.5, (7, 8)),
            *simcc_labels(points, 1.5, (7, 8)),
        ]
        assert {m.dtype for m in maps} == {dtype}
    points = POINTS.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda p: gaussian_heatmaps(p, 1.5, (7, 8)), points)


def test_the_definition_of_crops_exports():
    class Crop(torch.nn.Module):
        def forward(self, images, transforms, index):
            return reference.crop_patches(images, transforms, (4, 3), image_index=index)

    images = torch.rand(3, 2, 7, 6, generator=torch.Generator().manual_seed(3))
    call = images, CROP.float().expand(4, 2, 3), torch.tensor([0, 2, -1, 1])
    exported = torch.export.export(Crop(), call).module()
    torch.testing.assert_close(exported(*call), crop_patches(images, call[1], (4, 3), image_index=call[2]))


def test_the_definition_of_antialiased_crops_says_that_it_cannot_be_exported():
    class Crop(torch.nn.Module):
        def forward(self, images, transforms):
            return reference.crop_patches(images, transforms, (4, 3), antialias=True)

    with pytest.raises(RuntimeError, match="crop_patches: the number of samples of antialias=True follows from"):
        torch.export.export(Crop(), (torch.rand(1, 2, 7, 6), CROP.float().expand(1, 2, 3)))


HUGE = (2**25, 2**25)
LARGE_CALLS = {
    "gaussian_heatmaps": (lambda: gaussian_heatmaps(POINTS, 1.0, HUGE, dtype=torch.float32), 2**53),
    "part_affinity_fields": (lambda: part_affinity_fields(POINTS.float(), [(0, 1)], 1.0, HUGE), 2**53),
    "limb_masks": (lambda: limb_masks(POINTS.float(), [(0, 1)], 1.0, HUGE), 2**52),
    "offset_heatmaps": (lambda: offset_heatmaps(POINTS.float(), 1.0, HUGE), 6 * 2**52),
    "box_vote": (lambda: box_vote(BOXES, torch.ones(2, 1), HUGE), 2**52),
}


@pytest.mark.parametrize("name", LARGE_CALLS)
def test_out_of_memory_is_named(name):
    call, size = LARGE_CALLS[name]
    with pytest.raises(torch.OutOfMemoryError, match=rf"^{name}: .*33554432, 33554432\) \({size} bytes\)"):
        call()


def test_out_of_memory_with_a_gradient_and_beyond_the_address_space():
    with pytest.raises(torch.OutOfMemoryError, match="gaussian_heatmaps: out of memory"):
        gaussian_heatmaps(POINTS.clone().requires_grad_(), 1.0, HUGE)
    with pytest.raises(torch.OutOfMemoryError, match=r"gaussian_heatmaps: out of memory .*2\^63"):
        gaussian_heatmaps(POINTS, 1.0, (2**30, 2**30))


def test_out_of_memory_of_a_copy_is_named():
    maps = torch.zeros(1, 1, 1, 1).expand(1, 2, *HUGE)
    with pytest.raises(
        torch.OutOfMemoryError, match=rf"^heatmap_mse_loss: .*copies of shape \(1, 2, .* \({2**53} bytes"
    ):
        heatmap_mse_loss(maps, POINTS, 1.0)


@pytest.mark.parametrize("grad", [False, True])
def test_classes_of_errors(grad):
    points = POINTS.clone().requires_grad_(grad)
    with pytest.raises(ValueError, match="^gaussian_heatmaps: sigma must be positive and finite, got -1"):
        gaussian_heatmaps(points, -1.0, (7, 8))
    with pytest.raises(TypeError, match="^gaussian_heatmaps: truncate must be a number or None, got str"):
        gaussian_heatmaps(points, 1.0, (7, 8), truncate="wide")
    with pytest.raises(TypeError, match="^offset_heatmaps: radius must be a number, got 'wide'"):
        offset_heatmaps(points, "wide", (7, 8))
