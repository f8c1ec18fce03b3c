"""CnnMrf: receptive field, phases, the spatial model's choice between people, and sixteen people learnt by heart."""

import pytest
import torch
from overfit import lsp_people, overfit, results
from system_contract import check_compile, check_phases, check_poses, count, some_people

from pypose_ops import gaussian_heatmaps, models, skeletons
from pypose_ops.models.systems.cnn_mrf import CnnMrf, CnnMrfConfig, local_contrast

TINY = {"input_size": (48, 40), "channels": (4, 6, 8), "wide": (12, 10), "norm": True, "contrast": None, "sigma": 1.0}


@pytest.fixture
def tiny():
    return CnnMrf(14, CnnMrfConfig(**TINY))


def test_paper_shapes():
    """Maps of 60 x 90, priors with every displacement in them, from 13 joints and the torso to each joint."""
    with torch.device("meta"):
        system = models.build("cnn_mrf")
    assert system.input_size == (240, 360) and system.map_size == (60, 90)
    assert system.spatial.raw_prior.shape == (14 * 14, 119, 179)
    bank = (3 * 25 * 128 + 128) + 2 * (128 * 25 * 128 + 128) + 128 * 81 * 512
    head = 512 + (512 * 256 + 256) + (256 * 14 + 14)
    assert count(system) - count(system.spatial) == 2 * bank + head


def test_compact():
    with torch.device("meta"):
        assert count(models.build("cnn_mrf", 16, "compact")) <= 3_000_000


@pytest.mark.parametrize("banks, expected", [(1, 64), (2, 128)])
def test_receptive_field(banks, expected):
    """64 pixels, and 128 with the bank of half the resolution (figure 2), by gradient."""
    options = TINY | {"input_size": (192, 192), "channels": (2, 2, 2), "wide": (2, 2), "norm": False}
    system = CnnMrf(2, CnnMrfConfig(**options, banks=banks, torso=False)).double()
    for module in system.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.constant_(module.weight, 0.1)
            if module.bias is not None:
                torch.nn.init.constant_(module.bias, 1.0)
    # Several images, so that pooling takes every pixel in some of them.
    seen = torch.zeros(192, dtype=torch.bool)
    for _ in range(8):
        images = torch.rand(1, 3, 192, 192, dtype=torch.float64, requires_grad=True)
        system(images)[0][0, 0, 24, 24].backward()
        seen |= images.grad[0].abs().sum((0, 1)) > 0
    reached = seen.nonzero().flatten()
    assert reached[-1] - reached[0] + 1 == expected


def test_phases(tiny):
    assert tiny.phases == ("detector", "spatial", "joint")
    check_phases(tiny, some_people(tiny))


@pytest.mark.parametrize(
    "options",
    [{"torso": False}, {"torso_joints": (2, 3, 8, 9)}, {"spatial_loss": "cross_entropy"}, {"all_people": True}],
)
def test_options(options):
    system = CnnMrf(14, CnnMrfConfig(**TINY, **options))
    batch = some_people(system)
    check_phases(system, batch)
    check_poses(system, batch, 2)


def test_compile(tiny):
    check_compile(tiny, some_people(tiny))


def test_poses_are_pixels_of_the_image(tiny, monkeypatch):
    """A map pixel covers four image pixels; its centre is in the middle of them."""
    truth = torch.tensor([[5.0, 7.0]]).expand(14, 2)[None]  # map px
    maps = gaussian_heatmaps(truth, 1.0, tiny.map_size)
    monkeypatch.setattr(tiny, "heatmaps", lambda images, torso=None: [maps, maps])
    for peaks in tiny.poses(torch.zeros(1, 3, 48, 40)):
        torch.testing.assert_close(peaks.coords, truth * 4 + 1.5, rtol=0, atol=0.05)


def test_the_detector_is_fixed_in_the_second_phase(tiny):
    batch = some_people(tiny)
    tiny.begin_phase("spatial", [batch])
    tiny.train()
    before = {name: value.clone() for name, value in tiny.cascade.features.state_dict().items()}
    tiny.losses(batch, "spatial")["spatial"].backward()
    after = tiny.cascade.features.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())  # running statistics too
    tiny.begin_phase("joint", [batch])
    tiny.train()
    assert all(m.training for m in tiny.modules())


def test_a_person_is_chosen_by_the_torso():
    """Two people whose joints are all seen equally well; the one whose torso is marked is taken."""
    system = CnnMrf(14, CnnMrfConfig(**(TINY | {"input_size": (128, 128)}), torso_joints=(2, 3, 8, 9)))
    figure = 3 * torch.randn(14, 2)  # a person, in map px
    figure -= figure[[2, 3, 8, 9]].mean(0)
    people = (figure * 4) + torch.tensor([[40.0, 60.0], [90.0, 64.0], [64.0, 50.0], [50.0, 80.0]])[:, None]
    batch = models.Batch(torch.zeros(4, 3, 128, 128), people, torch.ones(4, 14, dtype=torch.bool))
    system.begin_phase("spatial", [batch])
    size = system.map_size
    codec = system.at(batch.images)
    both = gaussian_heatmaps(codec.to_heatmap(people[None, :2]), 1.0, size)
    for person in (0, 1):
        # The other one is brighter.
        maps = both - 0.1 * gaussian_heatmaps(codec.to_heatmap(people[person : person + 1]), 1.0, size)
        torso = people[person, [2, 3, 8, 9]].mean(0, keepdim=True)
        energies = system.cascade.refine[0](maps, (None, system.torso_maps(batch.images[:1], torso)))
        posterior = energies.flatten(2).softmax(-1).view_as(energies)
        chosen = system.decode(batch.images[:1], posterior).coords[0]
        assert (chosen - people[person]).norm(dim=-1).max() < 4
        wrong = system.decode(batch.images[:1], maps).coords[0]
        assert (wrong - people[person]).norm(dim=-1).median() > 20


def test_the_torso_is_in_the_middle_unless_told(tiny):
    images = torch.randn(2, 3, 48, 40)
    tiny.eval()
    middle = torch.tensor([[19.5, 23.5]]).expand(2, 2)
    torch.testing.assert_close(tiny.torso_maps(images), tiny.torso_maps(images, middle))
    corner = middle - 15
    assert not torch.equal(tiny(images, corner)[1], tiny(images)[1])
    told = tiny.poses(images, torso=middle, flip_pairs=skeletons.LSP.flip_pairs)
    for a, b in zip(told, tiny.poses(images, flip_pairs=skeletons.LSP.flip_pairs), strict=True):
        torch.testing.assert_close(a.coords, b.coords, equal_nan=True)
    nobody = torch.full((2, 2), float("nan"))
    torch.testing.assert_close(tiny.torso_maps(images, nobody), tiny.torso_maps(images))


def test_priors_are_measured(tiny):
    """Joint 3 is 8 pixels (2 map pixels) to the right of joint 0."""
    batch = some_people(tiny)
    batch.visible[:] = True
    keypoints = 10 + 10 * torch.rand(3, 14, 2)
    keypoints[:, 3] = keypoints[:, 0] + torch.tensor([8.0, 0.0])
    tiny.begin_phase("spatial", [models.Batch(batch.images, keypoints, batch.visible)])
    prior = tiny.spatial.prior[tiny.spatial.edges.index((0, 3))]
    height, width = tiny.map_size
    assert divmod(prior.argmax().item(), 2 * width - 1) == (height - 1, width - 1 + 2)


def test_all_people_count_for_the_detector():
    """Maps with a second person cost less with all_people=True."""
    losses = {}
    for all_people in (False, True):
        system = CnnMrf(14, CnnMrfConfig(**TINY, all_people=all_people))
        batch = some_people(system, 2)
        people = torch.cat((batch.keypoints[:1, None], batch.others[1:]), 1)
        visible = people.isfinite().all(-1)
        maps = system.at(batch.images).encode(people, visible)[0]
        one = models.Batch(batch.images[:1], batch.keypoints[:1], batch.visible[:1], others=batch.others[1:])
        losses[all_people] = system._detector_loss(system.at(batch.images), maps, one)
    assert losses[True] < 1e-6 < losses[False]


def test_local_contrast():
    images = torch.rand(2, 3, 20, 24)
    same = local_contrast(3 * images + 5, 9)
    torch.testing.assert_close(same, local_contrast(images, 9), rtol=1e-3, atol=1e-3)
    assert local_contrast(torch.ones(1, 3, 8, 8), 5).abs().max() < 1e-3


def test_bad_arguments():
    with pytest.raises(ValueError, match="CnnMrf: input_size must be multiples of 8, got"):
        CnnMrf(14, CnnMrfConfig(input_size=(100, 96)))
    with pytest.raises(ValueError, match="spatial_loss must be one of"):
        CnnMrf(14, CnnMrfConfig(**TINY, spatial_loss="l1"))
    with pytest.raises(ValueError, match="phase must be one of detector, spatial, joint, got 'stage1'"):
        CnnMrf(14, CnnMrfConfig(**TINY)).begin_phase("stage1", [])
    with pytest.raises(ValueError, match=r"images must be \(48, 40\)"):
        CnnMrf(14, CnnMrfConfig(**TINY))(torch.zeros(1, 3, 40, 40))


def test_overfit(shared_data):
    """The heatmaps alone are not enough; messages between them are."""
    system = models.build("cnn_mrf", 14, "compact")
    batch = lsp_people(shared_data, system)
    for phase, steps in zip(system.phases, (150, 20, 150), strict=True):
        overfit(system, batch, steps, size=4, phase=phase)
    stages = results(system, batch)
    print("cnn_mrf", [(round(pck, 1), round(distance, 2)) for pck, distance in stages])
    (first, far), (last, near) = stages
    assert last >= 95 and last > first and near < far
