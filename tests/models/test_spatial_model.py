"""SpatialModel: priors from displacements, training, pruning, images, real joints."""

import numpy as np
import pytest
import torch

from pypose_ops import gaussian_heatmaps
from pypose_ops.models import SpatialModel, full_edges, limb_edges, tree_edges
from pypose_ops.skeletons import COCO, MPII

SIZE = (24, 20)
EDGES = [(0, 1), (1, 0)]


def people(count, noise=0.7):
    """Joint 1 is 6 px to the right of and 3 px below joint 0."""
    first = torch.rand(count, 2) * torch.tensor([10.0, 16.0]) + 2
    return torch.stack((first, first + torch.tensor([6.0, 3.0]) + noise * torch.randn(count, 2)), 1)


def model_of(poses, **options):
    visible = torch.ones(poses.shape[:2], dtype=torch.bool)
    return SpatialModel.from_displacements(poses, visible, EDGES, SIZE, 2, **options)


def places(maps):
    index = maps.flatten(2).argmax(-1)
    return torch.stack((index % SIZE[1], index // SIZE[1]), -1)


def test_prior_is_the_displacement():
    model = model_of(people(500))
    peak = model.prior.flatten(1).argmax(1)
    dy, dx = peak // (2 * SIZE[1] - 1) - (SIZE[0] - 1), peak % (2 * SIZE[1] - 1) - (SIZE[1] - 1)
    assert dx.tolist() == [6, -6] and dy.tolist() == [3, -3]
    torch.testing.assert_close(model.prior.sum((1, 2)), torch.ones(2), rtol=0.01, atol=0)


def test_positive_parameters_survive_the_softplus():
    prior = torch.tensor([1e-6, 1e-3, 0.5, 3.0, 80.0]).reshape(5, 1, 1)
    edges = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]
    model = SpatialModel(prior, edges, 3, beta=2.0, bias=1e-4, weight=0.3)
    torch.testing.assert_close(model.prior, prior, rtol=1e-4, atol=0)
    torch.testing.assert_close(model.bias, torch.full((5,), 1e-4), rtol=1e-4, atol=0)
    torch.testing.assert_close(model.weight, torch.tensor(0.3))


def test_a_distractor_is_refused(device):
    model = model_of(people(500)).to(device)
    truth = torch.tensor([[[5.0, 8.0], [11.0, 11.0]]])
    maps = gaussian_heatmaps(truth.to(device), 1.0, SIZE)
    maps[:, 1] = 0.8 * maps[:, 1]
    maps[:, 1, 3, 2] = 1.0  # brighter, and in a place where joint 1 never is
    assert places(maps)[0, 1].tolist() == [2, 3]
    assert places(model(maps))[0].tolist() == truth[0].tolist()


def train(model, steps=40, torso=False):
    """The losses of a few steps on people next to whom joint 1 is seen somewhere else, too."""
    optimiser = torch.optim.Adam(model.parameters(), lr=0.05)
    losses = []
    for _ in range(steps):
        truth = people(16, noise=0).round()
        maps = gaussian_heatmaps(truth, 1.0, SIZE)
        maps[:, 1] = gaussian_heatmaps(torch.rand(16, 1, 2) * 18, 1.0, SIZE)[:, 0].maximum(maps[:, 1])
        if torso:
            maps = torch.cat((maps, gaussian_heatmaps(truth.mean(1, keepdim=True), 1.0, SIZE)), 1)
        target = (truth[..., 1] * SIZE[1] + truth[..., 0]).long()
        loss = torch.nn.functional.cross_entropy(model(maps).flatten(2).flatten(0, 1), target.flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


def flat_model(edges, **options):
    prior = torch.full((len(edges), 2 * SIZE[0] - 1, 2 * SIZE[1] - 1), 1e-3)
    return SpatialModel(prior, edges, 2, beta=2.0, **options)


def test_training_learns_a_prior():
    torch.manual_seed(3)
    losses = train(flat_model(EDGES))
    assert np.mean(losses[-5:]) < 0.6 * losses[0]


def test_training_learns_weight_and_bias():
    """With true priors, messages that weigh too little are made to weigh more; a bias per pixel gets its gradient."""
    model = model_of(people(500), weight=0.05, bias=torch.full((2, *SIZE), 1e-3))
    model.raw_prior.requires_grad_(False)
    before = model.bias.detach()
    losses = train(model)
    assert model.weight > 0.1 and np.mean(losses[-5:]) < losses[0]
    assert (model.bias != before).all()


def test_training_learns_from_a_torso():
    """A channel that is no output: its messages are learnt, and differ from those of an uninformative edge."""
    model = flat_model([(2, 0), (2, 1)])
    losses = train(model, torso=True)
    assert np.mean(losses[-5:]) < 0.6 * losses[0]
    peak = model.prior[1].flatten().argmax().item()
    assert (
        abs(peak % (2 * SIZE[1] - 1) - (SIZE[1] - 1) - 3) <= 1 and abs(peak // (2 * SIZE[1] - 1) - SIZE[0] - 0.5) <= 1
    )


def test_pruning_between_steps_of_training():
    """Edge (1, 1), from a joint to itself, is told nothing about displacements other than 0 and stays."""
    model = flat_model([(0, 1), (1, 0), (0, 0)])
    with torch.no_grad():
        model.raw_prior[2].fill_(-20.0)
    model.raw_prior.register_hook(lambda grad: torch.cat((grad[:2], torch.zeros_like(grad[2:]))))
    train(model)
    assert model.prune(0.05) == [(0, 0)]
    losses = train(model, 20)
    assert losses[-1] < 0.6 * train(flat_model(EDGES), 1)[0]


def test_state_of_a_pruned_model_loads():
    pruned, fresh = (flat_model([(0, 1), (1, 0), (0, 0)], bias=torch.rand(3, *SIZE) + 0.1) for _ in range(2))
    with torch.no_grad():
        pruned.raw_prior[1, 0, 0] = 3.0
    assert pruned.prune(0.1) == [(0, 1), (0, 0)]
    fresh.load_state_dict(pruned.state_dict())
    maps = torch.rand(2, 2, *SIZE)
    assert fresh.edges == ((1, 0),) and torch.equal(fresh(maps), pruned(maps))
    assert [p.requires_grad for p in fresh.parameters()] == [True] * 3
    with torch.no_grad():
        pruned.raw_prior.zero_()
    assert (fresh.raw_prior != 0).all()
    assert fresh.prune(1e9) == [(1, 0)] and (fresh(maps) == maps.clamp(min=fresh.floor).log()).all()


def test_edges_of_graphs():
    assert full_edges(range(2)) == [(0, 1), (1, 0)]
    assert full_edges([3, 1], self_edges=True) == [(3, 3), (3, 1), (1, 3), (1, 1)]
    assert full_edges(range(2), [2]) == [(0, 1), (1, 0), (2, 0), (2, 1)]
    with pytest.raises(ValueError, match=r"got \[1\] as both"):
        full_edges(range(2), [1])
    legs = limb_edges(COCO, range(11, 17))
    assert len(legs) == 10 and {(15, 13), (13, 15), (11, 12)} <= set(legs)
    assert len(limb_edges(MPII)) == 2 * len(MPII.edges)


def test_tree_holds_the_most_information():
    edges = [(0, 1), (1, 0), (1, 2), (0, 2), (3, 3), (4, 3)]
    assert sorted(tree_edges(edges, torch.tensor([1.0, 2.0, 0.5, 0.3, 9.0, 0.1]))) == sorted(
        [(0, 1), (1, 0), (1, 2), (2, 1), (3, 4), (4, 3)]
    )
    assert tree_edges([(0, 0)], [1.0]) == []
    with pytest.raises(ValueError, match="must be positive, got 0.0 for the edge"):
        tree_edges([(0, 1)], [0.0])
    with pytest.raises(ValueError, match="must be positive, got nan"):
        tree_edges([(0, 1)], [float("nan")])


def test_sources_only():
    """A third map, a torso, speaks to both joints and is not an output."""
    prior = torch.rand(2, 5, 5) + 0.1
    model = SpatialModel(prior, [(2, 0), (2, 1)], 2)
    assert model(torch.rand(1, 3, 9, 8)).shape == (1, 2, 9, 8)


def test_pixels_that_are_not_finite(device):
    model = model_of(people(50)).to(device)
    maps = torch.rand(1, 2, *SIZE, device=device)
    empty, broken = maps.clone(), maps.clone()
    for i, value in enumerate((float("nan"), float("inf"), float("-inf"))):
        empty[0, i % 2, 3, i], broken[0, i % 2, 3, i] = 0.0, value
    assert torch.equal(model(broken), model(empty)) and model(empty).isfinite().all()


def test_half_precision(device):
    model = model_of(people(50)).to(device)
    maps = torch.rand(1, 2, *SIZE, device=device).half()
    assert model(maps).dtype == torch.float32
    torch.testing.assert_close(model(maps), model(maps.float()))


def test_prune_and_draw():
    poses = people(300)
    visible = torch.ones(300, 2, dtype=torch.bool)
    model = SpatialModel.from_displacements(poses, visible, EDGES, SIZE, 2)
    with torch.no_grad():
        model.raw_prior[1] = -3.0  # the same everywhere
    assert model.prune(0.5) == [(1, 0)] and model.edges == ((0, 1),)
    assert model(torch.rand(1, 2, *SIZE)).shape == (1, 2, *SIZE)
    image = model.draw(["hip", "knee"])
    assert image.mode == "RGB" and len(image.getcolors(1 << 20)) > 50


def test_smoothing_is_binomial():
    """One pass over a single displacement is [1 2 1] x [1 2 1] / 16, around it."""
    poses = torch.tensor([[[5.0, 5.0], [7.0, 9.0]]])
    visible = torch.ones(1, 2, dtype=torch.bool)
    model = SpatialModel.from_displacements(poses, visible, [(0, 1)], SIZE, 2, smooth=1, smallest=1e-9)
    expected = torch.tensor([1.0, 2.0, 1.0]).outer(torch.tensor([1.0, 2.0, 1.0])) / 16
    y, x = SIZE[0] - 1 + 4, SIZE[1] - 1 + 2
    torch.testing.assert_close(model.prior[0, y - 1 : y + 2, x - 1 : x + 2], expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(model.prior.sum(), torch.tensor(1.0), rtol=1e-4, atol=0)


def test_unseen_pairs_get_a_flat_prior():
    visible = torch.zeros(4, 2, dtype=torch.bool)
    model = SpatialModel.from_displacements(people(4), visible, EDGES, SIZE, 2)
    assert model.information().abs().max() < 1e-3


def test_bad_arguments():
    with pytest.raises(ValueError, match="one kernel per edge, got 2 for 1"):
        SpatialModel(torch.rand(2, 3, 3), [(0, 1)], 2)
    for name in ("bias", "floor", "beta", "weight"):
        with pytest.raises(ValueError, match="must be positive"):
            SpatialModel(torch.rand(1, 3, 3), [(0, 1)], 2, **{name: 0.0})
    with pytest.raises(ValueError, match="prior must be positive and finite, got -1"):
        SpatialModel(torch.tensor([[[1.0, -1.0, 2.0]]]), [(0, 1)], 2)
    with pytest.raises(ValueError, match="targets must be below num_joints = 2"):
        SpatialModel(torch.ones(1, 3, 3), [(0, 2)], 2)


def test_priors_of_real_joints(shared_data):
    """FLIC: the elbow is below the shoulder."""
    with np.load(shared_data / "flic_joints.npz", allow_pickle=False) as file:
        joints, names = torch.from_numpy(file["joints"]).float(), file["joint_names"].tolist()
        torso = torch.from_numpy(file["torsobox_xyxy"]).float()
    shoulder, elbow = names.index("lsho"), names.index("lelb")
    poses = joints[:, [shoulder, elbow]] * (20.0 / (torso[:, 3] - torso[:, 1]))[:, None, None]
    visible = poses.isfinite().all(-1)
    model = SpatialModel.from_displacements(torch.nan_to_num(poses), visible, EDGES, (60, 90), 2)
    down = model.prior[0].sum(1)
    assert down[60:].sum() > 4 * down[:59].sum()
