"""max_product and sum_product: every placement enumerated, hand-computed cases, real maps."""

import itertools
import math

import numpy as np
import pytest
import torch

import pypose_ops
from pypose_ops import max_product, reference, sum_product

TREES = {
    "pair": (2, [(1, 0)], (4, 5)),
    "chain": (3, [(0, 1), (2, 1)], (3, 4)),
    "star": (4, [(1, 0), (1, 2), (3, 1)], (2, 3)),
    "fork": (5, [(0, 1), (1, 2), (3, 2), (2, 4)], (2, 2)),
    "row": (3, [(0, 1), (0, 2)], (1, 9)),
}


def scores_of_all_poses(unary, edges, deformation):
    """(B, P, P, ..., P) for P pixels and one axis per joint."""
    batch, joints, height, width = unary.shape
    y, x = (
        g.flatten().to(unary.dtype) for g in torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    )

    def along(values, *axes):
        """values (..., P) or (P, P) on the axes of some joints."""
        shape = [values.shape[0] if values.dim() > len(axes) else 1] + [1] * joints
        for axis in axes:
            shape[1 + axis] = height * width
        if len(axes) == 2 and axes[0] > axes[1]:
            values = values.transpose(-1, -2)
        return values.reshape(shape)

    total = sum(along(unary[:, k].flatten(1), k) for k in range(joints))
    for (a, b), (mean_x, mean_y, weight_x, weight_y) in zip(edges, deformation, strict=True):
        cost = weight_x * (x - x[:, None] - mean_x) ** 2 + weight_y * (y - y[:, None] - mean_y) ** 2
        total = total - along(cost, a, b)  # rows are a, columns b
    return total


def problem(name, seed=0):
    joints, edges, size = TREES[name]
    torch.manual_seed(seed)
    unary = 2 * torch.randn(2, joints, *size, dtype=torch.float64)
    deformation = torch.rand(joints - 1, 4, dtype=torch.float64) * torch.tensor([3.0, 3.0, 0.8, 0.8]) - torch.tensor(
        [1.5, 1.5, -0.05, -0.05]
    )
    return unary, edges, deformation


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", TREES)
def test_max_product_against_all_poses(device, name, seed):
    unary, edges, deformation = problem(name, seed)
    joints, (height, width) = unary.shape[1], unary.shape[2:]
    every = scores_of_all_poses(unary, edges, deformation)
    for root in range(joints):
        (coords, scores), maps = max_product(unary.to(device), edges, deformation.to(device), root=root)
        for k in range(joints):
            others = [1 + j for j in range(joints) if j != k]
            torch.testing.assert_close(maps[:, k].cpu(), every.amax(others).reshape(-1, height, width))
        for b in range(unary.shape[0]):
            best = np.unravel_index(every[b].argmax().item(), every.shape[1:])
            assert coords[b].tolist() == [[p % width, p // width] for p in best]
            torch.testing.assert_close(
                scores[b].cpu(), torch.stack([unary[b, k].flatten()[p] for k, p in enumerate(best)])
            )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", TREES)
def test_sum_product_against_all_poses(device, name, seed):
    unary, edges, deformation = (t.requires_grad_() if torch.is_tensor(t) else t for t in problem(name, seed))
    joints, (height, width) = unary.shape[1], unary.shape[2:]
    every = scores_of_all_poses(unary, edges, deformation)
    for root in range(joints):
        maps, total = sum_product(unary.to(device), edges, deformation.to(device), root=root)
        expected_total = every.flatten(1).logsumexp(1)
        torch.testing.assert_close(total.cpu(), expected_total)
        for k in range(joints):
            others = [1 + j for j in range(joints) if j != k]
            expected = every.logsumexp(others) - expected_total[:, None]
            torch.testing.assert_close(maps[:, k].cpu(), expected.reshape(-1, height, width))
        # The gradients of log Z: the marginals, and minus the mean squared stretch of every spring.
        found = torch.autograd.grad(total.sum(), (unary, deformation), retain_graph=True)
        wanted = torch.autograd.grad(expected_total.sum(), (unary, deformation), retain_graph=True)
        torch.testing.assert_close(found, wanted)
        torch.testing.assert_close(found[0], maps.exp().cpu())


def test_a_spring_by_hand(device):
    """Joint 1 is expected 2.25 px right of joint 0, which is at 1: at 3.25, so at pixel 3, a quarter of a pixel off."""
    unary = torch.full((1, 2, 1, 7), -100.0, device=device)
    unary[0, 0, 0, 1] = 5.0
    unary[0, 1] = 1.0
    (coords, scores), maps = max_product(unary, [(0, 1)], torch.tensor([[2.25, 0.0, 4.0, 1.0]], device=device))
    assert coords[0].tolist() == [[1, 0], [3, 0]] and scores[0].tolist() == [5, 1]
    torch.testing.assert_close(maps[0, 1, 0].cpu(), torch.tensor([6 - 4 * (x - 3.25) ** 2 for x in range(7)]))
    # The same edge, reversed.
    swapped = max_product(unary, [(1, 0)], torch.tensor([[-2.25, 0.0, 4.0, 1.0]], device=device))
    assert swapped[1].equal(maps) and swapped[0].coords.equal(coords)


def test_gradients_by_hand(device):
    """The best pose of the line above moves with its two pixels and with its spring, which is stretched by -0.25."""
    unary = torch.full((1, 2, 1, 7), -100.0, device=device)
    unary[0, 0, 0, 1] = 5.0
    unary[0, 1] = 1.0
    unary.requires_grad_()
    deformation = torch.tensor([[2.25, 0.0, 4.0, 1.0]], device=device, requires_grad=True)
    peaks, maps = max_product(unary, [(0, 1)], deformation)
    assert not peaks.coords.requires_grad
    maps[:, 0].amax().backward()
    expected = torch.zeros(1, 2, 1, 7)
    expected[0, 0, 0, 1] = expected[0, 1, 0, 3] = 1
    assert unary.grad.cpu().equal(expected)
    torch.testing.assert_close(deformation.grad.cpu(), torch.tensor([[2 * 4 * -0.25, 0.0, -(0.25**2), 0.0]]))
    unary.grad = None
    max_product(unary, [(0, 1)], deformation)[0].scores.sum().backward()
    assert unary.grad.cpu().equal(expected)


def test_pixels_of_equal_score_go_to_the_first(device):
    unary = torch.zeros(1, 2, 3, 4, device=device)
    unary[0, 0, 0] = -9.0
    for weight in (0.0, 0.5):
        deformation = torch.tensor([[0.5, -0.5, weight, weight]], device=device)
        (coords, _), _ = max_product(unary, [(0, 1)], deformation)
        # Joint 1 is as well placed half a pixel to the left as to the right, and above as below.
        assert coords[0].tolist() == [[0, 1], [0, 0]]


def test_the_means_of_a_pose_are_found(device):
    """Flat unaries but for the root: every joint lands where the sum of the means leads."""
    edges, means = [(0, 1), (1, 2), (3, 1)], [(4.0, 1.0), (-2.0, 3.0), (1.0, 1.0)]
    unary = torch.zeros(1, 4, 16, 20, device=device)
    unary[0, 0, 5, 7] = 1.0
    deformation = torch.tensor([[*m, 0.3, 0.7] for m in means], device=device)
    (coords, _), maps = max_product(unary, edges, deformation)
    assert coords[0].tolist() == [[7, 5], [11, 6], [9, 9], [10, 5]]
    assert maps.amax((-2, -1)).flatten().tolist() == [1, 1, 1, 1]
    marginals = sum_product(50 * unary, edges, 50 * deformation * torch.tensor([0.02, 0.02, 1, 1], device=device))
    for k, (x, y) in enumerate(coords[0].int().tolist()):
        assert marginals.log_marginals[0, k].argmax().item() == y * 20 + x


@pytest.mark.parametrize("op", (max_product, sum_product))
@pytest.mark.parametrize("dtype", (torch.float32, torch.float64), ids=str)
def test_huge_scores_never_make_nan(device, op, dtype):
    most = torch.finfo(dtype).max
    unary = torch.tensor([most, -most, 0.0, math.inf, 1e30, -math.inf], dtype=dtype).reshape(1, 1, 2, 3)
    unary = unary.repeat(2, 3, 1, 1).to(device).requires_grad_()
    deformation = torch.tensor(
        [[1e30, -1e30, 1e30, 1e-30], [0.0, 0.0, most, 1e-38]], dtype=dtype, device=device, requires_grad=True
    )
    result = op(unary, [(0, 1), (1, 2)], deformation)
    leaves = [t for t in torch.utils._pytree.tree_leaves(result) if t.requires_grad]
    assert not any(t.isnan().any() for t in leaves)
    grads = torch.autograd.grad(leaves, (unary, deformation), [torch.ones_like(t) for t in leaves])
    assert not grads[0].isnan().any() and not grads[1].isnan().any()


@pytest.mark.parametrize("op", (max_product, sum_product))
def test_real_maps_in_single_precision(device, op, shared_data):
    with np.load(shared_data / "heatmaps" / "movenet_thunder_topdown.npz", allow_pickle=False) as file:
        unary = torch.from_numpy(file["heatmaps"][:2, 5:11].astype(np.float32)).clamp(min=1e-4).log()
    edges = [(0, 1), (0, 2), (2, 4), (1, 3), (3, 5)]
    deformation = torch.tensor([[-8.3, 0.4, 0.03, 0.05], [3.0, 9.5, 0.01, 0.02]])[[0, 1, 1, 1, 1]]
    exact = torch.utils._pytree.tree_leaves(op(unary.double(), edges, deformation.double()))
    found = torch.utils._pytree.tree_leaves(op(unary.to(device), edges, deformation.to(device)))
    for a, e in zip(found, exact, strict=True):
        assert a.dtype == torch.float32
        assert (a.cpu() - e).abs().max() < 1e-4


@pytest.mark.parametrize("edges", (((1, 0), (1, 2)), np.array([[1, 0], [1, 2]]), torch.tensor([[1, 0], [1, 2]])))
def test_edges_in_any_form(edges):
    unary, deformation = torch.rand(1, 3, 6, 5), torch.rand(2, 4)
    for op in (max_product, sum_product):
        expected, found = op(unary, [(1, 0), (1, 2)], deformation), op(unary, edges, deformation)
        for a, b in zip(*map(torch.utils._pytree.tree_leaves, (found, expected)), strict=True):
            assert a.equal(b)


def test_a_long_line_is_linear_in_its_pixels():
    """Sums over the hull: a line that keeps every source, one that keeps few, and brute force."""
    n = 300
    x = torch.arange(n, dtype=torch.float64)
    for line, weight in itertools.product((torch.rand(n).double(), -0.01 * x**2, 0.01 * x**2), (1e-3, 0.01, 1.0)):
        unary = torch.stack([torch.zeros(n, dtype=torch.float64), line])[None, :, None]
        maps = max_product(unary, [(0, 1)], torch.tensor([[0.3, 0.0, weight, 1.0]], dtype=torch.float64))[1]
        expected = (line - weight * (x - x[:, None] - 0.3) ** 2).amax(1)
        torch.testing.assert_close(maps[0, 0, 0], expected)


# Lines of a block are staged 8 or 32 at a time; long ones lie in device memory.
SIZES = ((33, 9), (7, 65), (3, 130), (460, 2), (2, 1400), (1, 1), (40, 40))


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64), ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", ("max_product", "sum_product"))
def test_maps_of_any_size_and_their_gradients(device, name, size, dtype):
    torch.manual_seed(3)
    edges = [(0, 1), (2, 1), (1, 3)]
    deformation = torch.tensor([[0.3, -1.0, 0.02, 0.1], [2.0, 0.0, 0.5, 0.0], [-0.7, 0.4, 0.004, 1.0]], dtype=dtype)
    inputs = [torch.randn(2, 4, *size, dtype=dtype), deformation]
    found, expected = (
        [v.detach().clone().to(where).requires_grad_() for v in inputs] for where in (device, torch.device("cpu"))
    )
    results = []
    for tensors, module in ((found, pypose_ops), (expected, reference)):
        result = getattr(module, name)(tensors[0], edges, tensors[1], root=2)
        maps = result.max_marginals if name == "max_product" else result.log_marginals
        torch.manual_seed(4)
        maps.backward(torch.randn(maps.shape, dtype=dtype).to(maps.device))
        results.append([maps, *(t.grad for t in tensors)])
    for a, b in zip(*results, strict=True):
        tolerance = {"rtol": 2e-4, "atol": 2e-4} if dtype == torch.float32 else {}
        torch.testing.assert_close(a.cpu(), b, **tolerance)


def test_a_tree_of_many_joints(device):
    """Branches of different depths, from every root: messages wait for what they need, and for nothing else."""
    torch.manual_seed(5)
    parents = [int(torch.randint(0, k, ())) for k in range(1, 12)]
    edges = [(p, k) if k % 2 else (k, p) for k, p in enumerate(parents, 1)]
    deformation = 0.1 + torch.rand(11, 4, dtype=torch.float64)
    unary = torch.randn(1, 12, 5, 6, dtype=torch.float64)
    expected = reference.max_product(unary, edges, deformation).max_marginals
    for root in range(12):
        best, marginals = max_product(unary.to(device), edges, deformation.to(device), root=root)
        torch.testing.assert_close(marginals.cpu(), expected)
        x, y = best.coords.cpu().unbind(-1)
        assert torch.equal(y * 6 + x, expected.flatten(2).argmax(-1).double())
