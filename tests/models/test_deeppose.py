"""DeepPose: its geometry, what its stages are trained on, and sixteen people learnt by heart."""

import pytest
import torch
from overfit import lsp_people, overfit, results
from system_contract import check_compile, check_phases, check_poses, count, some_people
from torch import nn

from pypose_ops import geometry, models
from pypose_ops.models.systems.deeppose import DeepPose, DeepPoseConfig, PoseRefine

TINY = {"input_size": (64, 48), "patch_size": (32, 32), "backbone": "resnet18", "width": 0.1, "hidden": ()}


@pytest.fixture
def tiny():
    return DeepPose(14, DeepPoseConfig(**TINY, crops=6, simulate_diameter=True))


def test_published_parameter_count():
    """Figure 2: one stage, biases included."""
    with torch.device("meta"):
        system = models.build("deeppose")
    assert count(system.net("stage1")) == count(system.net("stage3")) == 58_396_060
    assert count(system) == 3 * 58_396_060


@pytest.mark.parametrize("preset, most", [("compact", 3_000_000), ("resnet", 73_000_000)])
def test_presets(preset, most):
    with torch.device("meta"):
        assert count(models.build("deeppose", 16, preset)) <= most


def test_phases(tiny):
    assert tiny.phases == ("stage1", "stage2", "stage3")
    check_phases(tiny, some_people(tiny))


def test_poses(tiny):
    check_poses(tiny, some_people(tiny), 3)


def test_compile(tiny):
    check_compile(tiny, some_people(tiny))


def test_poses_are_pixels_of_the_image():
    """A net that always says the middle of its box: the image's middle, and no displacement afterwards."""
    system = DeepPose(14, DeepPoseConfig(**TINY)).eval()
    for phase in system.phases:
        nn.init.zeros_(system.net(phase).net.head[-1].weight)
    for coords, scores in system.poses(torch.randn(2, 3, 64, 48), flip_pairs=[(0, 5)]):
        torch.testing.assert_close(coords, torch.tensor([23.5, 31.5]).expand(2, 14, 2))
        assert (scores == 1).all()


def test_poses_so_far_leave_out_later_stages(tiny):
    """A later stage takes a crop per joint, most of the time of a validation."""
    images = torch.randn(2, 3, 64, 48)
    poses = tiny.eval().poses(images)
    for number, phase in enumerate(tiny.phases, 1):
        found = tiny.poses_so_far(images, phase)
        assert len(found) == number
        for one, other in zip(found, poses, strict=False):
            assert torch.equal(one.coords, other.coords) and torch.equal(one.scores, other.scores)


def test_mirrored_poses_are_averaged():
    system = DeepPose(14, DeepPoseConfig(**TINY)).eval()
    images, pairs = torch.randn(2, 3, 64, 48), [(0, 5), (1, 4)]
    here, there = system.poses(images)[-1].coords, system.poses(images.flip(-1))[-1].coords
    both = system.poses(images, flip_pairs=pairs)[-1].coords
    torch.testing.assert_close(
        both[:, 0], (here[:, 0] + torch.tensor([47.0, 0.0]) + there[:, 5] * torch.tensor([-1.0, 1.0])) / 2
    )
    torch.testing.assert_close(
        both[:, 13], (here[:, 13] + torch.tensor([47.0, 0.0]) + there[:, 13] * torch.tensor([-1.0, 1.0])) / 2
    )


class Oracle(nn.Module):
    """Answers as a perfect net would: crops of an image of coordinates tell where they are."""

    def __init__(self, truth):
        super().__init__()
        self.truth = truth

    def forward(self, patches):
        count, joints = len(patches), self.truth.shape[1]
        size = patches.shape[-1]
        left, right = patches[:, :2, size // 2, 0], patches[:, :2, size // 2, -1]
        side = (right - left)[:, 0] * size / (size - 1)
        top, bottom = patches[:, :2, 0, size // 2], patches[:, :2, -1, size // 2]
        center = torch.stack(((left + right)[:, 0] / 2, (top + bottom)[:, 1] / 2), -1)
        truth = self.truth.repeat_interleave(joints, 0)
        answers = (truth - center[:, None]) / side[:, None, None]
        # Other joints' pairs must not be read.
        own = torch.arange(joints).repeat(count // joints)
        answers[torch.arange(joints) != own[:, None]] = float("nan")
        return answers.flatten(1)


def test_a_perfect_net_moves_an_estimate_onto_the_truth():
    """The crops, their boxes and the displacement are one geometry."""
    y, x = torch.meshgrid(torch.arange(96.0), torch.arange(128.0), indexing="ij")
    images = torch.stack((x, y, torch.zeros_like(x))).expand(2, -1, -1, -1)
    truth = 40 + 20 * torch.rand(2, 14, 2)
    estimate = truth + 2 * torch.randn(2, 14, 2)
    estimate[:, 9], estimate[:, 2] = torch.tensor([60.0, 40.0]), torch.tensor([54.0, 48.0])  # a diam of 10
    stage = PoseRefine(Oracle(truth), (16, 16), (9, 2), 2.0, 0.01)
    torch.testing.assert_close(stage(estimate, images), truth, rtol=0, atol=2e-3)


def test_boxes_follow_the_estimates_diam():
    stage = PoseRefine(nn.Identity(), (16, 16), (9, 2), 2.0, 0.05)
    pose = torch.zeros(2, 14, 2)
    pose[0, 9] = torch.tensor([30.0, 40.0])
    images = torch.zeros(2, 3, 100, 80)
    diameters = stage.diameters(pose, images)
    assert diameters.tolist() == [50.0, 5.0]  # 5: the smallest, of an estimate whose torso is a point
    center, scale = stage.boxes(pose, diameters[:, None].expand(2, 14), images)
    assert center is pose and scale[0, 3].tolist() == [100.0, 100.0]
    torch.testing.assert_close(scale[0], geometry.joint_boxes(pose, (9, 2), sigma=2.0)[1][0])


def test_simulated_predictions_have_the_moments_of_the_real_ones(tiny):
    mean = torch.randn(14, 2)
    factor = torch.tril(torch.rand(14, 2, 2)) + 0.2 * torch.eye(2)
    displacements = mean + (factor @ torch.randn(4000, 14, 2, 1)).squeeze(-1)
    displacements[:1000, 3] = float("nan")
    tiny.fit(1, displacements, 0.1 + 0.3 * torch.randn(4000))
    keypoints, diameters = torch.rand(4000, 14, 2) * 50, torch.full((4000,), 7.0)
    joints = torch.arange(14).expand(4000, 14)
    center, sizes = tiny.simulate(1, keypoints, diameters, joints)
    found = (center - keypoints) / 7.0
    torch.testing.assert_close(found.mean(0), mean, rtol=0, atol=0.15)
    for k in range(14):
        torch.testing.assert_close(torch.cov(found[:, k].T), factor[k] @ factor[k].T, rtol=0.15, atol=0.1)
    ratio = (sizes / 7.0).log()
    assert abs(ratio.mean() - 0.1) < 0.02 and abs(ratio.std() - 0.3) < 0.02


def test_outliers_do_not_count(tiny):
    """People who are seen along their torso: a tenth of all, a hundred diams off."""
    displacements = 0.5 * torch.randn(4000, 14, 2)
    displacements[:400] *= 200
    tiny.fit(1, displacements, torch.zeros(4000))
    expected = 0.5 * torch.eye(2).expand(14, 2, 2)
    torch.testing.assert_close(tiny.displacement_factor[0], expected, rtol=0, atol=0.08)
    torch.testing.assert_close(tiny.displacement_mean[0], torch.zeros(14, 2), rtol=0, atol=0.05)


def test_begin_phase_measures_the_stage_before():
    """A first stage that is off by a known vector, in diams."""
    system = DeepPose(14, DeepPoseConfig(**TINY, stages=2)).eval()
    batch = some_people(system, 6)
    batch.visible[:] = True
    keypoints = torch.rand(1, 14, 2).expand(6, 14, 2) * 40
    batch = type(batch)(batch.images, keypoints, batch.visible)
    first = system.cascade.first
    nn.init.zeros_(first.net.head[-1].weight)
    off = torch.tensor([3.0, -2.0])
    with torch.no_grad():
        first.net.head[-1].bias.copy_(geometry.normalize_to_box(keypoints[0] + off, *first.box(batch.images)).flatten())
    system.begin_phase("stage2", [batch])
    diameter = (keypoints[0, 9] - keypoints[0, 2]).norm()
    torch.testing.assert_close(system.displacement_mean[0], (off / diameter).expand(14, 2))
    torch.testing.assert_close(system.diameter, diameter)
    assert system.displacement_factor.abs().max() < 2e-3 and system.log_diameter.abs().max() < 1e-5
    assert not any(p.requires_grad for p in first.parameters())


def test_gaussians_are_fitted_to_some_people_from_everywhere(monkeypatch, tiny):
    monkeypatch.setattr("pypose_ops.models.systems.deeppose.FITTED", 8)
    seen = []
    monkeypatch.setattr(tiny.cascade.first, "forward", lambda images: seen.append(images) or torch.rand(2, 14, 2))
    batches = [some_people(tiny, 2) for _ in range(13)]
    tiny.begin_phase("stage2", batches)
    assert [next(n for n, b in enumerate(batches) if b.images is images) for images in seen] == [0, 3, 6, 9, 12]
    tiny.begin_phase("stage2", (batch for batch in batches))  # of unknown length
    assert len(seen) == 5 + 13


@pytest.mark.parametrize("warm", [True, False])
def test_later_stages_begin_with_the_backbone_of_the_stage_before(warm):
    system = DeepPose(14, DeepPoseConfig(**TINY, warm_start=warm))
    for number, phase in enumerate(system.phases):
        system.begin_phase(phase, [])
        net = system.net(phase).net
        if number:
            before = system.net(system.phases[number - 1]).net
            weights = zip(net.features.state_dict().values(), before.features.state_dict().values(), strict=True)
            assert all(torch.equal(a, b) for a, b in weights) == warm
            assert not torch.equal(net.head[-1].weight, before.head[-1].weight)
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(0.1 * (number + 1))


def test_nobody_labelled_is_a_loss_of_zero(tiny):
    batch = some_people(tiny)
    batch.visible[:] = False
    for phase in tiny.phases:
        tiny.begin_phase(phase, [batch])
        assert sum(tiny.losses(batch, phase).values()) == 0


def test_larger_images_are_resampled_for_the_first_stage():
    system = DeepPose(14, DeepPoseConfig(**TINY)).eval()
    assert system(torch.randn(1, 3, 128, 96))[-1].shape == (1, 14, 2)


def test_bad_arguments():
    with pytest.raises(ValueError, match="torso must name the left shoulder and right hip of 5 joints"):
        DeepPose(5, DeepPoseConfig(**TINY))
    assert DeepPose(5, DeepPoseConfig(**TINY, torso=(0, 3))).torso == (0, 3)
    with pytest.raises(ValueError, match="two different joints below 5"):
        DeepPose(5, DeepPoseConfig(**TINY, torso=(0, 5)))
    with pytest.raises(ValueError, match="loss must be one of"):
        DeepPose(14, DeepPoseConfig(**TINY, loss="l1"))
    with pytest.raises(ValueError, match="phase must be one of stage1, stage2, stage3, got 'joint'"):
        DeepPose(14, DeepPoseConfig(**TINY)).begin_phase("joint", [])


def test_overfit(shared_data):
    """A first stage that is stopped early is improved by the second."""
    system = models.build("deeppose", 14, "compact", crops=8)
    batch = lsp_people(shared_data, system)
    for phase, steps in zip(system.phases, (36, 100, 50), strict=True):
        overfit(system, batch, steps, phase=phase)
    stages = results(system, batch)
    print("deeppose", [(round(pck, 1), round(distance, 2)) for pck, distance in stages])
    (first, far), (second, near), (last, nearer) = stages
    assert first < 93 and second >= 95 and last >= 95
    assert near < 0.8 * far and nearer < 0.8 * far
