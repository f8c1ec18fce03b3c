"""DualSource: labels of windows, their fusion, one source alone, and sixteen people learnt by heart."""

import pytest
import torch
from overfit import lsp_people, overfit, results
from system_contract import check_compile, check_phases, check_poses, count, some_people

from pypose_ops import geometry, models
from pypose_ops.models.systems.dual_source import (
    DualSource,
    DualSourceConfig,
    centers_and_scales,
    fuse_windows,
    squares,
)

TINY = {
    "input_size": (64, 48),
    "part_size": (32, 32),
    "body_size": (32, 32),
    "backbone": "resnet18",
    "width": 0.1,
    "hidden": (16, 24),
    "dropout": 0.0,
    "grid": (6, 5),
    "scales": (1.0, 1.5),
    "windows": 8,
}


def test_published_layers():
    """Two ungrouped AlexNets up to their first fully connected layer, joined."""
    with torch.device("meta"):
        system = models.build("dual_source")
    alexnet = 3_747_200 + 9216 * 4096 + 4096
    assert count(system.nets["part"]) == alexnet and count(system.nets["body"]) == alexnet + 96 * 11 * 11
    assert count(system.joined) == 8192 * 4096 + 4096
    assert system.detection.out_features == 15 and system.localisation.out_features == 2


def test_compact():
    with torch.device("meta"):
        assert count(models.build("dual_source", 16, "compact")) <= 3_000_000


@pytest.mark.parametrize("sources", [("part", "body"), ("part",), ("body",)])
@pytest.mark.parametrize("joint_coords", [False, True])
def test_system(sources, joint_coords):
    system = DualSource(14, DualSourceConfig(**TINY, sources=sources, joint_coords=joint_coords))
    assert set(system.nets) == set(sources)
    batch = some_people(system)
    check_phases(system, batch)
    check_poses(system, batch, 1)
    ((logits, places),) = system(batch.images)
    assert logits.shape == (3, 60, 15) and places.shape == ((3, 60, 14, 2) if joint_coords else (3, 60, 2))


def test_compile():
    system = DualSource(14, DualSourceConfig(**TINY))
    check_compile(system, some_people(system))


def test_patches_in_chunks():
    system = DualSource(14, DualSourceConfig(**TINY)).eval()
    images = torch.randn(2, 3, 64, 48)
    whole = system(images)[0]
    system.chunk = 7
    torch.testing.assert_close(system(images)[0], whole, rtol=1e-4, atol=1e-5)


def test_what_the_nets_see():
    """The part, and the whole image with the part marked."""
    system = DualSource(14, DualSourceConfig(**TINY, sources=("part", "body")))
    seen = {}
    for name, net in system.nets.items():
        net.features.register_forward_pre_hook(lambda _, args, name=name: seen.update({name: args[0]}))
    images = torch.arange(48.0).expand(1, 3, 64, 48)
    window = torch.tensor([[[7.5, 15.5, 39.5, 47.5]]])  # pixels 8 to 39, 16 to 47
    system.eval()(images, window)
    torch.testing.assert_close(seen["part"], torch.arange(8.0, 40.0).expand(1, 3, 32, 32))
    body, mask = seen["body"][0, 0], seen["body"][0, 3]
    torch.testing.assert_close(body[4, 1:-1], torch.arange(32.0)[1:-1] * 1.5 + 0.25, rtol=0, atol=0.26)
    expected = torch.zeros(32, 32)
    expected[8:24, 5:27] = 1  # centres at 2 y + 0.5 and 1.5 x + 0.25
    assert mask.equal(expected)


def test_labels():
    system = DualSource(14, DualSourceConfig(**TINY))
    keypoints = torch.full((1, 14, 2), 60.0)
    keypoints[0, 4], keypoints[0, 7] = torch.tensor([10.0, 10.0]), torch.tensor([14.0, 10.0])
    visible = torch.ones(1, 14, dtype=torch.bool)
    windows = squares(torch.tensor([[[9.0, 10.0], [13.0, 12.0], [30.0, 30.0]]]), torch.full((1, 3), 16.0))
    labels, places = system.label(windows, keypoints, visible, torch.tensor([12.0]))
    assert labels.tolist() == [[5, 8, 0]]
    torch.testing.assert_close(places[0], torch.tensor([[1 / 16, 0.0], [1 / 16, -2 / 16], [0.0, 0.0]]))
    visible[0, 4] = False  # not labelled: the next one, which is within half a diameter
    assert system.label(windows, keypoints, visible, torch.tensor([12.0]))[0].tolist() == [[8, 8, 0]]


def perfect(system, windows, keypoints, visible, diameters):
    """Likelihoods and places of windows that know."""
    labels, places = system.label(windows, keypoints, visible, diameters)
    likelihood = torch.nn.functional.one_hot(labels, 15)[..., 1:].float()
    center, scale = centers_and_scales(windows)
    places = geometry.denormalize_from_box(places, center, scale)[:, :, None].expand(-1, -1, 14, -1)
    return likelihood, places


def test_perfect_windows_fuse_to_the_exact_joints():
    system = DualSource(14, DualSourceConfig(**(TINY | {"input_size": (128, 128), "grid": (24, 24)})))
    system.diameter.fill_(24.0)
    y, x = torch.meshgrid(torch.arange(4.0), torch.arange(4.0), indexing="ij")
    spots = torch.stack((x, y), -1).flatten(0, 1) * 30 + 18
    keypoints = torch.stack([spots[torch.randperm(16)[:14]] for _ in range(3)]) + 4 * torch.rand(3, 14, 2)
    visible = torch.ones(3, 14, dtype=torch.bool)
    visible[0, 5] = False
    windows = system.sliding_windows(torch.zeros(3, 3, 128, 128))
    evidence = perfect(system, windows, keypoints, visible, torch.full((3,), 24.0))
    coords, scores = fuse_windows(windows, *evidence, (128, 128))
    torch.testing.assert_close(coords[visible], keypoints[visible], rtol=0, atol=1e-3)
    assert (scores[visible] > 0.2).all()
    assert coords[0, 5].isnan().all() and scores[0, 5] == 0


def test_mirrored_windows_vote_for_mirrored_joints(monkeypatch):
    """The mirrored crop, read perfectly, gives the same joints as the crop itself."""
    system = DualSource(14, DualSourceConfig(**(TINY | {"input_size": (128, 128), "grid": (16, 16)}))).eval()
    system.diameter.fill_(30.0)
    keypoints, pairs = 20 + 88 * torch.rand(1, 14, 2), [(0, 5), (1, 4), (2, 3)]
    visible = torch.ones(1, 14, dtype=torch.bool)
    images = torch.rand(1, 3, 128, 128)

    def evidence(shown, windows):
        there = keypoints if shown.equal(images) else geometry.flip_keypoints(keypoints, 128, pairs)
        return perfect(system, windows, there, visible, torch.tensor([30.0]))

    monkeypatch.setattr(system, "_evidence", evidence)
    (here,), (both,) = system.poses(images), system.poses(images, flip_pairs=pairs)
    known = here.scores > 0
    assert known.sum() >= 10
    torch.testing.assert_close(both.coords[known], keypoints[known], rtol=0, atol=1e-3)


def test_windows():
    system = DualSource(14, DualSourceConfig(**TINY))
    system.begin_phase("joint", [])
    batch = some_people(system)
    system.begin_phase("joint", [batch])
    torso = (batch.keypoints[:, 9] - batch.keypoints[:, 2]).norm(dim=-1)[:2]  # the last one is not labelled
    torch.testing.assert_close(system.diameter, torso.median())
    windows = system.sliding_windows(batch.images)
    center, scale = centers_and_scales(windows)
    assert windows.shape == (3, 60, 4)
    assert center[0].amin(0).tolist() == pytest.approx([0, 0], abs=1e-5)
    assert center[0].amax(0).tolist() == pytest.approx([47, 63], abs=1e-4)
    sides = scale[..., 0] / system.diameter
    torch.testing.assert_close(sides, torch.tensor([1.0, 1.5]).repeat_interleave(30).expand(3, 60))
    drawn = system.training_windows(
        batch.keypoints.nan_to_num(), batch.visible, torch.tensor([10.0, 20.0, 30.0]), (64, 48)
    )
    sides = centers_and_scales(drawn)[1] / torch.tensor([10.0, 20.0, 30.0])[:, None, None]
    assert drawn.shape == (3, 8, 4) and (sides > 0.999).all() and (sides < 1.501).all()


def test_bad_arguments():
    with pytest.raises(ValueError, match="some of part and body"):
        DualSource(14, DualSourceConfig(**TINY, sources=("whole",)))
    with pytest.raises(ValueError, match="phase must be one of joint"):
        DualSource(14, DualSourceConfig(**TINY)).begin_phase("stage1", [])


def test_overfit(shared_data):
    system = models.build("dual_source", 14, "compact")
    batch = lsp_people(shared_data, system)
    overfit(system, batch, 600, size=4)
    stages = results(system, batch)
    print("dual_source", [(round(pck, 1), round(distance, 2)) for pck, distance in stages])
    assert stages[-1][0] >= 95
