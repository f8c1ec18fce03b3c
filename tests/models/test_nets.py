"""Hourglass, CPM, PAF net and part heatmap regression: published sizes, receptive fields, targets, losses, decoding."""

import pytest
import torch
from torch import nn

from pypose_ops import gaussian_heatmaps, part_affinity_fields, skeletons
from pypose_ops.geometry import flip_keypoints
from pypose_ops.models import Batch, build
from pypose_ops.models.modules.joint_regression import RegressionHead
from pypose_ops.models.modules.layers import Hourglass, Residual

NAMES = ("stacked_hourglass", "cpm", "paf_net", "part_heatmap_regression")
K = 14


def size_of(module):
    return sum(p.numel() for p in module.parameters())


@pytest.fixture(scope="module", params=NAMES)
def compact(request):
    torch.manual_seed(0)
    return build(request.param, K, "compact")


def images_of(system, count=2):
    return torch.randn(count, 3, *system.input_size, generator=torch.Generator().manual_seed(1))


def batch_of(system, count=2):
    """People anywhere in the crop; joint 3 of person 0 has no label; one other person in crop 1."""
    height, width = system.input_size
    g = torch.Generator().manual_seed(2)
    keypoints = torch.rand(count, K, 2, generator=g) * torch.tensor([width - 1.0, height - 1.0])
    visible = torch.ones(count, K, dtype=torch.bool)
    visible[0, 3] = False
    keypoints[0, 3] = float("nan")
    others = torch.full((count, 2, K, 2), float("nan"))
    others[1, 0] = torch.rand(K, 2, generator=g) * torch.tensor([width - 1.0, height - 1.0])
    return Batch(images_of(system, count), keypoints, visible, None, others)


PUBLISHED = [
    ("cpm", 14, "paper", {}, 31_219_866),
    ("cpm", 14, "vgg", {}, 29_852_058),
    ("cpm", 9, "paper", {"stages": 4}, 21_323_816),
    ("stacked_hourglass", 16, "paper", {}, 25_434_112),
    ("stacked_hourglass", 16, "paper", {"stacks": 2}, 6_570_400),
    ("stacked_hourglass", 16, "paper", {"stacks": 1}, 3_426_448),
    ("paf_net", 18, "paper", {"limbs": [(0, 1)] * 19}, 52_311_446),
]


@pytest.mark.parametrize(("name", "joints", "preset", "options", "parameters"), PUBLISHED)
def test_published_number_of_parameters(name, joints, preset, options, parameters):
    with torch.device("meta"):
        assert size_of(build(name, joints, preset, **options)) == parameters


@pytest.mark.parametrize(
    ("name", "preset", "stages", "stride"),
    [("cpm", "paper", 6, 8), ("cpm", "vgg", 6, 8), ("stacked_hourglass", "paper", 8, 4), ("paf_net", "paper", 6, 8)]
    + [("part_heatmap_regression", preset, 2, 1) for preset in ("paper", "vgg")],
)
def test_published_layout_on_the_meta_device(name, preset, stages, stride):
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(), torch.no_grad():
        system = build(name, 16, preset).eval()
        out = system(torch.empty(1, 3, *system.input_size))
    maps = out[-1][-1] if name == "paf_net" else out[-1]
    height, width = system.input_size
    background = name in ("cpm", "paf_net")
    assert len(out) == stages
    assert tuple(maps.shape) == (1, 16 + background, height // stride, width // stride)


@pytest.mark.parametrize(
    ("name", "options", "unit"),
    [
        ("cpm", {}, 8),
        ("paf_net", {}, 8),
        ("stacked_hourglass", {"depth": 2}, 16),
        ("stacked_hourglass", {"depth": 2, "backbone": "efficientnet_lite0"}, 32),
        ("part_heatmap_regression", {"levels": 4}, 64),
        ("part_heatmap_regression", {"levels": 2}, 16),
        ("part_heatmap_regression", {"levels": 4, "regressor": "large_kernel"}, 4),
        ("part_heatmap_regression", {"levels": 2, "detector": "vgg"}, 32),
        ("part_heatmap_regression", {"levels": 2, "detector": "mobilenet_v2"}, 32),
        ("cnn_mrf", {"banks": 3}, 16),
        ("heatmap_net", {"people": True}, 4),
        ("cnn_mrf", {"detector": "efficientnet_lite0"}, 32),
    ],
)
def test_sizes_of_images_that_halve_evenly(name, options, unit):
    size = (3 * max(unit, 8), 2 * max(unit, 8))  # layers with norm need more than a pixel
    with torch.no_grad():
        system = build(name, 14, "compact", input_size=size, **options).eval()
        system(torch.zeros(1, 3, *size))
    for size in ((unit // 2, unit), (unit, unit + unit // 2)):
        with pytest.raises(ValueError, match=f": input_size must be multiples of {unit}, got"):
            build(name, 14, "compact", input_size=size, **options)
    for size in ((0, unit), (unit, -unit)):
        with pytest.raises(ValueError, match=": input_size must be positive, got"):
            build(name, 14, "compact", input_size=size, **options)


def test_compact_is_small(compact):
    assert size_of(compact) <= 3_000_000


@pytest.mark.parametrize(("pool", "sizes"), [(2, (160, 400, 640)), (3, (167, 407, 647))])
def test_cpm_receptive_fields(pool, sizes):
    """What the middle cell of each stage's maps depends on; pools become means, for a maximum has one gradient."""
    narrow = {"widths": (1, 1, 1), "hidden": 1, "stage_width": 1, "dropout": 0.0}
    system = build("cpm", 1, stages=3, pool=pool, **narrow).double()
    for module in system.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.MaxPool2d):
                setattr(module, name, nn.AvgPool2d(pool, 2, ceil_mode=True))
    for p in system.parameters():
        nn.init.constant_(p, 0.1)
    for shape, cell in (((720, 8), (45, 0)), ((8, 720), (0, 45))):  # thin: one axis at a time
        images = torch.zeros(1, 3, *shape, dtype=torch.float64, requires_grad=True)
        for maps, size in zip(system(images), sizes, strict=True):
            (grad,) = torch.autograd.grad(maps[0, 0][cell], images, retain_graph=True)
            seen = grad[0].abs().sum(0) > 0
            assert max(int(seen.any(0).sum()), int(seen.any(1).sum())) == size


def test_hourglass_has_a_skip_at_every_level():
    def levels(m):
        return 1 + (levels(m.inner) if isinstance(m.inner, Hourglass) else 0)

    net = Hourglass(3, 8)
    assert levels(net) == 3 and isinstance(net.inner.inner.inner, Residual)
    assert net(torch.randn(2, 8, 16, 24)).shape == (2, 8, 16, 24)
    wide = Hourglass(2, 8, 16, blocks=3, learned=True)
    assert len(wide.skip) == 3 and wide(torch.randn(1, 8, 8, 8)).shape == (1, 16, 8, 8)


def test_regression_head_is_the_mean_and_a_layer():
    features = nn.Conv2d(3, 6, 1)
    head = RegressionHead(features, (3, 4), 2 * 5)
    x = torch.randn(2, 3, 3, 4)
    assert torch.allclose(head(x)[1, 8:10], head.head[-1](features(x)[1].mean((1, 2)))[8:10])


def test_forward_shapes(compact):
    out = compact.eval()(images_of(compact))
    maps = compact.heatmaps(images_of(compact))
    assert len(out) == len(maps) >= 2
    for m in maps:
        assert m.shape[:2] == (2, K) and m.dtype == torch.float32
    if hasattr(compact, "limbs"):
        assert out[0][0].shape == (2, 2 * len(skeletons.LSP.edges), 16, 16)


def test_compile_has_one_graph(compact):
    compact.eval()
    images = images_of(compact)
    with torch.no_grad():
        torch.compiler.reset()
        compiled = torch.compile(compact, backend="aot_eager", fullgraph=True)
        for got, wanted in zip(flat(compiled(images)), flat(compact(images)), strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


def flat(stages):
    return [t for stage in stages for t in (stage if isinstance(stage, tuple) else (stage,))]


def test_every_trained_parameter_gets_a_gradient(compact):
    compact.train()
    for phase in compact.phases:
        compact.begin_phase(phase, [])
        compact.zero_grad()
        losses = compact.losses(batch_of(compact), phase)
        assert all(loss.dim() == 0 and loss.isfinite() for loss in losses.values())
        sum(losses.values()).backward()
        for name, p in compact.named_parameters():
            assert (p.grad is not None) == p.requires_grad, (phase, name)
            assert p.grad is None or p.grad.isfinite().all(), (phase, name)
            # A bias before batch normalisation has none that matters.
            assert p.grad is None or p.dim() < 2 or p.grad.abs().max() > 0, (phase, name)
    assert all(p.requires_grad for p in compact.parameters())
    default = compact.eval().losses(batch_of(compact))
    assert default.keys() == losses.keys()


def test_autocast(compact):
    with torch.autocast("cpu", torch.bfloat16):
        losses = compact.train().losses(batch_of(compact))
    assert all(loss.isfinite() for loss in losses.values())


def test_poses_are_in_the_crop(compact):
    compact.eval()
    images = images_of(compact)
    for options in ({}, {"flip_pairs": skeletons.LSP.flip_pairs}, {"scales": (0.8, 1.0, 1.25)}):
        stages = compact.poses(images, **options)
        assert len(stages) == len(compact.heatmaps(images))
        for coords, scores in stages:
            assert coords.shape == (2, K, 2) and scores.shape == (2, K)
            height, width = compact.input_size
            inside = (coords >= -4) & (coords < torch.tensor([width, height]) + 4)
            missing = coords.isnan().all(-1) & (scores == 0)  # a map without a positive pixel
            assert (inside.all(-1) | missing).all() and not missing.all()


def test_flip_test_is_the_same_in_the_mirror(compact, monkeypatch):
    if compact.flip_shift:
        pytest.skip("index-aligned maps are a fraction of a pixel off in the mirror")
    compact.eval()
    monkeypatch.setattr(compact, "refine", "dark")  # the mixed derivative of dark_udp has a side
    images, pairs = images_of(compact), skeletons.LSP.flip_pairs
    here, there = compact.poses(images, flip_pairs=pairs), compact.poses(images.flip(-1), flip_pairs=pairs)
    # Sigmoids of an untrained detector are 1 in many places; its last layer repeats every pixel 4 x 4 times.
    first, allowed = (1, 4.0) if type(compact).__name__ == "PartHeatmapRegression" else (0, 0.05)
    for (coords, scores), (mirrored, others) in zip(here[first:], there[first:], strict=True):
        torch.testing.assert_close(scores, others[:, list(skeletons.LSP.flip_index)], rtol=1e-3, atol=1e-5)
        found = scores > 0
        back = flip_keypoints(mirrored, images.shape[-1], pairs)
        torch.testing.assert_close(coords[found], back[found], rtol=0, atol=allowed)


@pytest.mark.parametrize("align", ["center", "index"])
def test_scales_look_at_the_same_places(align):
    """With a net whose maps are the image itself, smaller."""
    system = build("cpm" if align == "center" else "stacked_hourglass", 3, "compact")
    keypoints = torch.tensor([[[40.0, 50.0], [64.5, 71.0], [90.0, 77.25]]])
    images = gaussian_heatmaps(keypoints, 8.0, (128, 128))
    system.heatmaps = lambda images: [nn.functional.avg_pool2d(images, 8 if align == "center" else 4)]
    (plain,), (scaled,) = system.poses(images), system.poses(images, scales=(0.8, 1.0, 1.3))
    allowed = 1.0 if align == "center" else 2.5
    assert (plain.coords - keypoints).abs().max() < allowed and (scaled.coords - keypoints).abs().max() < allowed


def test_decoding_undoes_drawing(compact):
    compact.eval()
    height, width = compact.input_size
    keypoints = 8 + torch.rand(2, K, 2) * (torch.tensor([width, height]) - 17)
    images = images_of(compact)
    for stage, maps in enumerate(compact.heatmaps(images)):
        codec = compact.codec(images, maps)
        size = maps.shape[-2:]
        drawn = codec.encode(keypoints)[0][:, :K]
        if type(compact).__name__ == "PartHeatmapRegression" and stage == 0:
            drawn = gaussian_heatmaps(keypoints, compact.radius, size, profile="disc")
        coords, _ = compact.decode(images, drawn, stage=stage)
        allowed = 0.5 * codec.input_size[0] / size[1] if codec.refine == "quarter" else 0.75
        assert (coords - keypoints).abs().max() <= allowed


def zero_loss(system, batch, outputs, phase=None):
    system.forward = lambda images: outputs
    try:
        return {name: float(loss) for name, loss in system.losses(batch, phase).items()}
    finally:
        del system.forward


def test_cpm_trains_the_first_stage_on_everybody():
    system = build("cpm", K, "compact")
    batch = batch_of(system)
    codec = system.codec(batch.images, torch.empty(2, K + 1, 16, 16))
    everybody = torch.cat((batch.keypoints[:, None], batch.others), 1)
    alone, _ = codec.encode(batch.keypoints, batch.visible)
    together, _ = codec.encode(everybody, everybody.isfinite().all(-1))
    losses = zero_loss(system, batch, [together, alone, alone])
    assert max(losses.values()) < 1e-12
    losses = zero_loss(system, batch, [alone, together, alone])
    assert losses["stage1"] > 1e-4 and losses["stage2"] > 1e-4 and losses["stage3"] < 1e-12


def test_cpm_background_counts():
    system = build("cpm", K, "compact")
    batch = batch_of(system)
    codec = system.codec(batch.images, torch.empty(2, K + 1, 16, 16))
    alone, _ = codec.encode(batch.keypoints, batch.visible)
    wrong = torch.cat((alone[:, :-1], alone[:, -1:] + 1), 1)
    assert zero_loss(system, batch, [alone, wrong, alone])["stage2"] == pytest.approx(1 / (K + 1))


def test_unlabelled_joints_do_not_count(compact):
    if type(compact).__name__ in ("PartHeatmapRegression", "PafNet"):
        pytest.skip("tested with their own targets")
    batch = batch_of(compact)
    outputs = [m.detach() for m in compact.eval()(batch.images)]
    changed = [m.clone() for m in outputs]
    for m in changed:
        m[0, 3] = 7.0
    assert zero_loss(compact, batch, outputs) == zero_loss(compact, batch, changed)


def test_cpm_centre_map():
    system = build("cpm", K)
    middle = system.center_map(torch.zeros(2, 3, 368, 368))
    assert middle.shape == (2, 1, 46, 46)
    # Windows of 9 that begin every 8 pixels: cell 22 looks at pixels 176 to 184, the middle is at 183.5.
    assert middle[0, 0].argmax() == 22 * 46 + 22 and torch.equal(middle[0], middle[1])
    drawn = gaussian_heatmaps(torch.tensor([[[100.0, 200.0]]]), 21.0, (368, 368))
    moved = system.center_map(torch.zeros(1, 3, 368, 368), torch.tensor([[100.0, 200.0]]))
    torch.testing.assert_close(moved[0, 0, 20, 10], drawn[0, 0, 160:169, 80:89].mean())


def test_paf_targets_show_everybody():
    system = build("paf_net", K, "compact")
    batch = batch_of(system)
    codec = system.codec(batch.images, torch.empty(2, K + 1, 16, 16))
    everybody = torch.cat((batch.keypoints[:, None], batch.others), 1)
    labelled = everybody.isfinite().all(-1)
    maps, _ = codec.encode(everybody, labelled)
    fields = part_affinity_fields(codec.to_heatmap(everybody), system.limbs, 1.0, (16, 16), visible=labelled)
    assert max(zero_loss(system, batch, [(fields, maps)] * 3).values()) < 1e-12
    # Limbs that end at the joint without a label do not count.
    loose = [n for n, limb in enumerate(system.limbs) if 3 in limb]
    fields, maps = fields.clone(), maps.clone()
    fields[0, [2 * n for n in loose]], maps[0, 3] = 5.0, 5.0
    assert loose and max(zero_loss(system, batch, [(fields, maps)] * 3).values()) < 1e-12
    fields[1, 0] += 1
    assert zero_loss(system, batch, [(fields, maps)] * 3)["stage1_fields"] > 1e-3


def test_paf_finds_two_people():
    system = build("paf_net", K, "compact", input_size=(256, 256))
    pose = torch.tensor(
        [[60, 220], [62, 180], [66, 140], [84, 140], [88, 180], [90, 220], [40, 130], [44, 100], [60, 70], [90, 70]]
        + [[106, 100], [110, 130], [75, 60], [75, 30]],
        dtype=torch.float32,
    )
    people = torch.stack((pose, pose + torch.tensor([120.0, 10.0])))[None]
    images = torch.zeros(1, 3, 256, 256)
    codec = system.codec(images, torch.empty(1, K + 1, 32, 32))
    fields = part_affinity_fields(codec.to_heatmap(people), system.limbs, 1.0, (32, 32))
    system.forward = lambda images: [(fields, codec.encode(people)[0])]
    found = system.people(images)
    assert found.counts.tolist() == [2]
    left = found.coords[0, :2][found.coords[0, :2, 0, 0].argsort()]
    assert (left - people[0]).abs().max() < 5


def test_paf_net_needs_limbs():
    assert build("paf_net", 17).limbs == list(skeletons.COCO.edges)
    with pytest.raises(ValueError, match="limbs must be given for 11 joints"):
        build("paf_net", 11)


def test_part_heatmap_targets():
    system = build("part_heatmap_regression", K, "compact")
    batch = batch_of(system)
    size = system.input_size
    discs = gaussian_heatmaps(batch.keypoints, system.radius, size, visible=batch.visible, profile="disc")
    gaussians = gaussian_heatmaps(batch.keypoints, system.sigma, size, visible=batch.visible)
    logits = (discs - 0.5) * 100
    logits[0, 3], gaussians[0, 3] = 50.0, 50.0  # no label
    losses = zero_loss(system, batch, [logits, gaussians])
    assert losses.keys() == {"detection", "regression"} and max(losses.values()) < 1e-12
    assert zero_loss(system, batch, [-logits, gaussians], "regression") == {"regression": losses["regression"]}


def test_part_heatmap_phases():
    system = build("part_heatmap_regression", K, "compact").train()
    batch = batch_of(system)
    system.begin_phase("regression", [])
    detector = {n: t.clone() for n, t in system.cascade.first.state_dict().items()}
    system.train()
    sum(system.losses(batch, "regression").values()).backward()
    assert not system.cascade.first.training and system.cascade.refine[0].training
    for name, tensor in system.cascade.first.state_dict().items():
        assert torch.equal(tensor, detector[name]), name  # running means too
    system.begin_phase("joint", [])
    assert system.train().cascade.first.training
    with pytest.raises(ValueError, match="phase must be one of detection, regression, joint"):
        system.begin_phase("both", [])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cpm", {"variant": "resnet"}),
        ("part_heatmap_regression", {"detector": "alexnet"}),
        ("part_heatmap_regression", {"regressor": "linear"}),
    ],
)
def test_unknown_variants(name, options):
    with torch.device("meta"), pytest.raises(ValueError, match="must be .* or .*, got"):
        build(name, K, **options)


def test_large_kernels_and_fcn_train():
    system = build("part_heatmap_regression", K, "vgg", width=0.05, regressor_width=0.1, norm=True, input_size=(64, 64))
    sum(system.train().losses(batch_of(system)).values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in system.parameters())
