"""SpatialModel: priors from displacements, training, pruning, pictures, real joints."""

import numpy as np
import pytest
import torch
from pypose_ops.models import SpatialModel

from pypose_ops import gaussian_heatmaps

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


def test_training_learns_a_prior():
    torch.manual_seed(3)
    prior = torch.full((2, 2 * SIZE[0] - 1, 2 * SIZE[1] - 1), 1e-3)
    model = SpatialModel(prior, EDGES, 2, beta=2.0)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.05)
    losses = []
    for _ in range(40):
        truth = people(16, noise=0).round()
        maps = gaussian_heatmaps(truth, 1.0, SIZE)
        maps[:, 1] = gaussian_heatmaps(torch.rand(16, 1, 2) * 18, 1.0, SIZE)[:, 0].maximum(maps[:, 1])
        target = (truth[..., 1] * SIZE[1] + truth[..., 0]).long()
        loss = torch.nn.functional.cross_entropy(model(maps).flatten(2).flatten(0, 1), target.flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.6 * losses[0]


def test_sources_only():
    """A third map, a torso, speaks to both joints and is not an output."""
    prior = torch.rand(2, 5, 5) + 0.1
    model = SpatialModel(prior, [(2, 0), (2, 1)], 2)
    assert model(torch.rand(1, 3, 9, 8)).shape == (1, 2, 9, 8)


def test_prune_and_draw():
    poses = people(300)
    visible = torch.ones(300, 2, dtype=torch.bool)
    model = SpatialModel.from_displacements(poses, visible, EDGES, SIZE, 2)
    with torch.no_grad():
        model.raw_prior[1] = -3.0  # the same everywhere
    assert model.prune(0.5) == [(1, 0)] and model.edges == ((0, 1),)
    assert model(torch.rand(1, 2, *SIZE)).shape == (1, 2, *SIZE)
    picture = model.draw(["hip", "knee"])
    assert picture.mode == "RGB" and len(picture.getcolors(1 << 20)) > 50


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
