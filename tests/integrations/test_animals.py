"""sleap-nn's and DeepLabCut's functions with pypose_ops against their own."""

import re

import numpy as np
import pytest
import torch

from pypose_ops import reference
from pypose_ops.integrations import _sleap_nn_grouping as grouping
from pypose_ops.integrations import deeplabcut as for_deeplabcut
from pypose_ops.integrations import sleap_nn as for_sleap


def need(module):
    return pytest.importorskip(module, exc_type=ImportError)


def frames(batch=2, joints=3, animals=4, size=(60, 80), seed=0):
    """Confidence maps of several animals, with noise, so that no two pixels are equal."""
    generator = torch.Generator().manual_seed(seed)
    at = torch.rand(batch, animals, joints, 2, generator=generator) * (torch.tensor(size[::-1]) - 1)
    maps = reference.gaussian_heatmaps(at, 1.5, size).float()
    return maps * 0.9 + 0.05 * torch.rand(maps.shape, generator=generator)


@pytest.mark.parametrize("refinement", (None, "integral"))
def test_global_peaks(refinement):
    theirs = need("sleap_nn.inference.ops.peaks").find_global_peaks
    cms = frames(animals=1)
    cms[0, 0] *= 0.1  # below the threshold
    actual = for_sleap.find_global_peaks(cms, 0.2, refinement)
    torch.testing.assert_close(actual, theirs(cms, 0.2, refinement), equal_nan=True, rtol=0, atol=1e-4)


@pytest.mark.parametrize("refinement", (None, "integral"))
@pytest.mark.parametrize("threshold", (0.2, 0.01))
def test_local_peaks(refinement, threshold):
    """At the low threshold every maximum of the noise is a peak: hundreds in a map."""
    theirs = need("sleap_nn.inference.ops.peaks").find_local_peaks
    cms = frames()
    expected = theirs(cms, threshold, refinement)
    actual = for_sleap.find_local_peaks(cms, threshold, refinement)
    assert len(expected[0]) > (500 if threshold < 0.1 else 10)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("refinement", (None, "integral"))
@pytest.mark.parametrize("size", ((150, 90), (61, 200)))
def test_more_peaks_than_one_search_finds(refinement, size):
    """Noise: a ninth of the pixels, found in tiles."""
    theirs = need("sleap_nn.inference.ops.peaks").find_local_peaks
    cms = torch.rand(2, 1, *size, generator=torch.Generator().manual_seed(0))
    expected = theirs(cms, 0.1, refinement)
    assert len(expected[0]) > 2 * for_sleap.MAX_PEAKS
    torch.testing.assert_close(for_sleap.find_local_peaks(cms, 0.1, refinement), expected, rtol=0, atol=1e-4)


def test_crops():
    crops = need("sleap_nn.inference.ops.crops")
    images = torch.randint(256, (3, 1, 40, 50), dtype=torch.uint8)
    from sleap_nn.data.instance_cropping import make_centered_bboxes

    boxes = make_centered_bboxes(torch.tensor([[10.0, 12.0], [0.0, 0.0], [49.0, 20.0]]), 11, 11)
    index = torch.tensor([0, 2, 1])
    assert torch.equal(for_sleap.crop_bboxes(images, boxes, index), crops.crop_bboxes(images, boxes, index))


def test_confidence_maps_and_fields():
    theirs, edges = need("sleap_nn.data.confidence_maps"), need("sleap_nn.data.edge_maps")
    points = torch.rand(2, 3, 5, 2) * 90
    points[0, 0, 0] = torch.nan
    xv, yv = torch.arange(0, 90, 2.0), torch.arange(0, 70, 2.0)
    for name, given in (("make_confmaps", points[:, 0]), ("make_multi_confmaps", points[:1])):
        actual = getattr(for_sleap, name)(given, xv, yv, 3.0)
        torch.testing.assert_close(actual, getattr(theirs, name)(given, xv, yv, 3.0), rtol=0, atol=1e-5)
    ends = points[1, :, :4], points[1, :, 1:]
    expected = edges.make_multi_pafs(xv, yv, *ends, 20.0)
    torch.testing.assert_close(for_sleap.make_multi_pafs(xv, yv, *ends, 20.0), expected, rtol=1e-4, atol=1e-5)


def test_limb_scores():
    theirs = need("sleap_nn.inference.ops.paf").score_paf_lines_batch
    edges = torch.tensor([[0, 1], [1, 2]])
    pafs = torch.randn(2, 30, 40, 4)
    peaks = [torch.rand(n, 2) * 58 for n in (7, 4)]
    channels = [torch.tensor([0, 1, 0, 2, 1, 2, 1]), torch.tensor([2, 2, 1, 0])]
    args = pafs, peaks, channels, edges, 10, 2, 0.25, 1.0, 3
    for actual, expected in zip(for_sleap.score_paf_lines_batch(*args), theirs(*args), strict=True):
        for a, e in zip(actual, expected, strict=True):
            torch.testing.assert_close(a, e, rtol=1e-4, atol=1e-5, check_dtype=False)


def test_two_animals_are_grouped():
    joints = torch.tensor([[[10.0, 10.0], [30.0, 10.0]], [[10.0, 40.0], [30.0, 40.0]]])  # two animals
    grid = torch.arange(0, 64, 2.0)
    fields = for_sleap.make_multi_pafs(grid, grid, joints[:, :1], joints[:, 1:], 20.0)
    pafs = fields.flatten(0, 1).permute(1, 2, 0)[None]
    coords, joint_scores, scores = for_sleap.group_instances(
        pafs, [joints.flatten(0, 1)], [torch.tensor([0.9, 0.8, 0.7, 0.6])], [torch.tensor([0, 1, 0, 1])], [(0, 1)],
        n_nodes=2, max_edge_length_ratio=1.0,
    )  # fmt: skip
    order = coords[0][:, 0, 1].argsort()
    assert torch.equal(coords[0][order], joints) and len(scores[0]) == 2
    torch.testing.assert_close(joint_scores[0][order], torch.tensor([[0.9, 0.8], [0.7, 0.6]]))


def test_grouping():
    paf = need("sleap_nn.inference.ops.paf")
    generator = torch.Generator().manual_seed(1)
    nodes, edges = ["a", "b", "c", "d"], [("b", "c"), ("a", "b"), ("b", "d")]
    at = 10 + torch.rand(5, 4, 2, generator=generator) * 100
    ends = [[nodes.index(edge[i]) for edge in edges] for i in (0, 1)]
    grid = torch.arange(0, 128, 2.0)
    fields = for_sleap.make_multi_pafs(grid, grid, at[:, ends[0]], at[:, ends[1]], 20.0)
    pafs = fields.flatten(0, 1).permute(1, 2, 0)[None].repeat(2, 1, 1, 1)
    peaks, channels = [at.reshape(-1, 2), at[:2].reshape(-1, 2)], [torch.arange(4).repeat(n) for n in (5, 2)]
    values = [torch.rand(len(p), generator=generator) for p in peaks]
    scorer = paf.PAFScorer(part_names=nodes, edges=edges, pafs_stride=2, max_edge_length_ratio=2.0)
    expected = scorer.predict(pafs, peaks, values, channels)
    with for_sleap.replace():
        actual = scorer.predict(pafs, peaks, values, channels)
    assert len(expected[0][0]) > 1
    for image in range(2):
        first, second = (part[image][:, 1, 0].argsort() for part in (actual[0], expected[0]))
        for a, e in zip(actual[:3], expected[:3], strict=True):
            torch.testing.assert_close(
                a[image][first], e[image][second], rtol=1e-4, atol=1e-4, equal_nan=True, check_dtype=False
            )
        candidates = []  # by edge and peaks: sleap-nn's sort is not stable
        for numbers, pairs, scores in (actual[3:], expected[3:]):
            rows = torch.cat([numbers[image][:, None], pairs[image], scores[image][:, None]], 1)
            candidates.append(rows[(rows[:, 0] * 1e4 + rows[:, 1] * 1e2 + rows[:, 2]).argsort()])
        torch.testing.assert_close(*candidates, rtol=1e-4, atol=1e-4)


def test_bad_pairs_take_peaks_from_good_ones():
    """sleap-nn matches all peaks and drops the matches with low scores."""
    paf = need("sleap_nn.inference.ops.paf")
    scores = torch.tensor([[0.9, 0.3, -0.1], [0.3, -0.9, -0.9], [-0.1, -0.9, -0.9]])
    expected = paf.match_candidates_sample(
        torch.zeros(9, dtype=torch.int32),
        torch.cartesian_prod(torch.arange(3), torch.arange(3, 6)),
        scores.flatten(),
        1,
    )
    matched = grouping._matched(torch.tensor([[3, 3]]), scores[None, None], [(0, 1)])[0, 0]
    index = tuple(part.long() for part in expected[1:3])
    assert torch.equal(matched, torch.full_like(matched, -torch.inf).index_put(index, expected[3]))
    lists = grouping._padded([torch.rand(6, 2)], None, [torch.tensor([0, 0, 0, 1, 1, 1])], 2)
    _, _, totals = grouping._group(lists, scores[None, None], [(0, 1)], min_line_score=0.25, min_instance_peaks=0)
    torch.testing.assert_close(totals[0].sort()[0], matched[matched > 0.25].sort()[0])


def test_grouping_of_a_crowd():
    paf = need("sleap_nn.inference.ops.paf")
    generator = torch.Generator().manual_seed(0)
    at = 20 + torch.rand(30, 1, 2, generator=generator) * 210
    at = (at + torch.randn(30, 6, 2, generator=generator).cumsum(1) * 6).clamp(2, 250)
    grid, nodes = torch.arange(0, 256, 4.0), list("abcdef")
    pafs = for_sleap.make_multi_pafs(grid, grid, at[:, :-1], at[:, 1:], 15.0).flatten(0, 1).permute(1, 2, 0)[None]
    pafs = pafs + 0.3 * torch.randn(pafs.shape, generator=generator)
    scorer = paf.PAFScorer(part_names=nodes, edges=list(zip(nodes, nodes[1:], strict=False)), pafs_stride=4)
    arguments = pafs, [at.flatten(0, 1)], [torch.ones(180)], [torch.arange(6).repeat(30)]
    expected = scorer.predict(*arguments)[0][0]
    with for_sleap.replace():
        actual = scorer.predict(*arguments)[0][0]
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-4, equal_nan=True)


@pytest.mark.parametrize("lengths", ((0, 3), (0, 0)))
def test_images_without_peaks(lengths):
    paf = need("sleap_nn.inference.ops.paf")
    scorer = paf.PAFScorer(part_names=["a", "b", "c"], edges=[("a", "b"), ("b", "c")], pafs_stride=2)
    peaks = [torch.rand(n, 2) * 20 for n in lengths]
    channels = [torch.arange(n, dtype=torch.int32) for n in lengths]
    arguments = torch.randn(2, 12, 12, 4), peaks, [torch.ones(n) for n in lengths], channels
    expected = scorer.predict(*arguments)
    with for_sleap.replace():
        actual = scorer.predict(*arguments)
    for part, other in zip(actual, expected, strict=True):
        for a, e in zip(part, other, strict=True):
            torch.testing.assert_close(a, e, rtol=1e-4, atol=1e-4, equal_nan=True, check_dtype=False)


def test_grouping_peaks_of_no_image():
    empty = torch.zeros(0, 12, 12, 4)
    assert for_sleap.group_instances(empty, [], [], [], [(0, 1), (1, 2)], n_nodes=3) == ([], [], [])
    assert for_sleap.score_paf_lines_batch(empty, [], [], [(0, 1), (1, 2)], 10, 2, 0.25, 1.0, 3) == ([], [], [])


def test_replacing_sleaps_functions():
    peaks = need("sleap_nn.inference.ops.peaks")
    own = peaks.find_global_peaks
    with for_sleap.replace():
        assert peaks.find_global_peaks is for_sleap.find_global_peaks
    assert peaks.find_global_peaks is own


def looped_targets(keypoints, visible, size, stride, kind, std=7.2801, radius=17.0):
    """DeepLabCut's definition, keypoint by keypoint, in float64: heatmaps, offsets and where they count."""
    y, x = (torch.floor(torch.arange(n) * stride + stride / 2).double() for n in size)
    batch, people, joints = visible.shape
    heatmaps, locref, near = (torch.zeros(batch, joints, *lead, *size).double() for lead in ((), (2,), (2,)))
    for b, p, k in (visible > 0).nonzero().tolist():
        dx, dy = torch.broadcast_tensors(keypoints[b, p, k, 0] - x, keypoints[b, p, k, 1] - y[:, None])
        inside = dx**2 + dy**2 <= radius**2
        drawn = inside.double() if kind == "plateau" else torch.exp(-(dx**2 + dy**2) / (2 * (2 * radius / 3) ** 2))
        heatmaps[b, k] = torch.maximum(heatmaps[b, k], drawn)
        covered = inside if kind == "plateau" else torch.ones_like(inside)
        locref[b, k] = torch.where(covered, torch.stack([dx, dy]) / std, locref[b, k])
        near[b, k, :, inside] = 1
    return heatmaps, locref.flatten(1, 2), near.flatten(1, 2)


@pytest.mark.parametrize("kind", ("gaussian", "plateau"))
@pytest.mark.parametrize("size", ((20, 30), (1, 3)))
@pytest.mark.parametrize("stride", (1, 3, 8))
def test_targets_of_overlapping_people(kind, size, stride):
    generator = torch.Generator().manual_seed(0)
    keypoints = torch.rand(3, 5, 4, 2, generator=generator) * (torch.tensor(size[::-1]) + 8) * stride - 4 * stride
    keypoints[0, :, 0] = keypoints[0, :1, 0].round()  # all people in one place
    visible = torch.randint(-1, 3, (3, 5, 4), generator=generator)
    actual = for_deeplabcut.heatmap_targets(keypoints, visible, size, stride, kind=kind)
    heatmaps, locref, near = looped_targets(keypoints.double(), visible, size, stride, kind)
    torch.testing.assert_close(actual.heatmaps.double(), heatmaps, rtol=0, atol=1e-5)
    torch.testing.assert_close(actual.locref.double(), locref, rtol=0, atol=1e-5)
    assert torch.equal(actual.locref_weights.double(), near)


def test_nobody_and_not_finite_keypoints_draw_nothing():
    keypoints = torch.tensor([[[[torch.nan, 4.0], [1e30, 4.0]]]])
    for given, shown in ((keypoints, torch.ones(1, 1, 2)), (keypoints[:, :0], torch.ones(1, 0, 2))):
        for kind in ("gaussian", "plateau"):
            targets = for_deeplabcut.heatmap_targets(given, shown, (4, 4), 8, kind=kind)
            assert not targets.heatmaps.any() and not targets.locref_weights.any()
            assert targets.locref.shape == (1, 4, 4, 4)


def test_odd_strides():
    """DeepLabCut's generators round the places of pixels down, its predictors do not."""
    keypoints, shown = torch.tensor([[[[2.0, 1.0]]]]), torch.ones(1, 1, 1)
    expected = torch.tensor([[0.7788, 0.8825, 0.7788], [0.8825, 1.0, 0.8825]])  # sigma 2, distances 1 and sqrt(2)
    actual = for_deeplabcut.heatmap_targets(keypoints, shown, (2, 4), 1, dist_thresh=3.0)
    torch.testing.assert_close(actual.heatmaps[0, 0, :, 1:], expected, rtol=0, atol=1e-4)
    for compat, off in (("deeplabcut", 0.5), (None, 0.0)):
        at = torch.tensor([[[[10.5, 7.5]]]])
        targets = for_deeplabcut.heatmap_targets(at, shown, (16, 16), 1, compat=compat)
        poses = for_deeplabcut.decode(targets.heatmaps, targets.locref, 1, apply_sigmoid=False)
        torch.testing.assert_close(poses[0, 0, :, :2] - at[0, 0], torch.full((1, 2), off), rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", ("Gaussian", "Plateau"))
@pytest.mark.parametrize("masking", (False, True))
@pytest.mark.parametrize("stride", (1, 2.5, 8.0))
def test_deeplabcuts_targets(kind, masking, stride):
    targets = need("deeplabcut.pose_estimation_pytorch.models.target_generators.heatmap_targets")
    generator = getattr(targets, f"Heatmap{kind}Generator")(
        num_heatmaps=4, pos_dist_thresh=17, gradient_masking=masking, label_keypoint_key="keypoints"
    )
    outputs = {"heatmap": torch.zeros(2, 4, 20, 30), "locref": torch.zeros(2, 8, 20, 30)}
    keypoints = torch.rand(2, 3, 4, 3) * torch.tensor([30.0 * stride, 20.0 * stride, 1.0])
    keypoints[..., 2] = torch.randint(-1, 3, (2, 3, 4))
    expected = generator(stride, outputs, {"keypoints": keypoints})
    with for_deeplabcut.replace():
        actual = generator(stride, outputs, {"keypoints": keypoints})
    for head in expected:
        for name, value in expected[head].items():
            torch.testing.assert_close(actual[head][name], value, rtol=1e-4, atol=1e-4, msg=f"{head} {name}")


def test_replaced_twice():
    targets = need("deeplabcut.pose_estimation_pytorch.models.target_generators.heatmap_targets")
    generator = targets.HeatmapGaussianGenerator(1, 17, label_keypoint_key="keypoints")
    maps = {"heatmap": torch.zeros(1, 1, 4, 4), "locref": torch.zeros(1, 2, 4, 4)}
    call = 2.5, maps, {"keypoints": torch.tensor([[[[5.0, 5.0, 2.0]]]])}
    expected = generator(*call)["heatmap"]["target"]
    with for_deeplabcut.replace(), for_deeplabcut.replace():
        assert torch.equal(generator(*call)["heatmap"]["target"], expected)


def test_deeplabcuts_poses():
    predictor = need("deeplabcut.pose_estimation_pytorch.models.predictors.single_predictor").HeatmapPredictor()
    outputs = {"heatmap": torch.randn(3, 5, 20, 30), "locref": torch.randn(3, 10, 20, 30)}
    expected = predictor(8.0, outputs)["poses"]
    with for_deeplabcut.replace():
        torch.testing.assert_close(predictor(8.0, outputs)["poses"], expected)


def fields_by_hand():
    """A horizontal limb, and the one of a second animal across it."""
    keypoints = torch.tensor([[[[2.0, 6.0], [14.0, 6.0]], [[6.0, 2.0], [6.0, 14.0]]]])
    return for_deeplabcut.paf_targets(keypoints, torch.ones(1, 2, 2), (4, 4), 4, [(0, 1)], 5.0)[0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_fields_of_half_precision(dtype):
    keypoints = torch.tensor([[[[2.0, 6.0], [14.0, 6.0]]]])
    drawn = [
        for_deeplabcut.paf_targets(given, torch.ones(1, 1, 2), (4, 4), 4, [(0, 1)], 5.0)
        for given in (keypoints, keypoints.to(dtype))
    ]
    torch.testing.assert_close(drawn[1], drawn[0].to(dtype))


def test_fields_fall_off_linearly_and_the_last_animal_is_on_top():
    x, y = fields_by_hand()  # pixel centres at 2, 6, 10, 14
    assert torch.equal(y[:, 1], torch.ones(4))
    torch.testing.assert_close(y[:, 0], torch.full((4,), 0.2))
    torch.testing.assert_close(x[:, 3], torch.tensor([0.2, 1.0, 0.2, 0.0]))
    assert not x[:, :3].any() and not y[:, 3].any()
    hidden = torch.tensor([[[1.0, 1.0], [1.0, 0.0]]])
    keypoints = torch.tensor([[[[2.0, 6.0], [14.0, 6.0]], [[6.0, 2.0], [torch.nan, 14.0]]]])
    for visible in (hidden, torch.ones(1, 2, 2)):
        fields = for_deeplabcut.paf_targets(keypoints, visible, (4, 4), 4, [(0, 1), (1, 1)], 5.0)[0]
        torch.testing.assert_close(fields[0, 1], torch.ones(4))
        assert not fields[1:].any()
    assert for_deeplabcut.paf_targets(keypoints, hidden, (4, 4), 4, [], 5.0).shape == (1, 0, 4, 4)


@pytest.mark.parametrize(
    ("changed", "message"),
    (
        ({"keypoints": torch.ones(1, 1, 2, 2, dtype=torch.int64)}, "floating, got (1, 1, 2, 2) and torch.int64"),
        ({"keypoints": torch.ones(1, 1, 2, 3)}, "keypoints must be (B, P, K, 2)"),
        ({"visible": torch.ones(1, 2)}, "visible must be (1, 1, 2), got shape (1, 2)"),
        ({"graph": [(0, 2)]}, "graph must name joints below 2, got [(0, 2)]"),
        ({"width": -5.0}, "width must be positive, got -5.0"),
    ),
)
def test_fields_of_bad_input_are_refused(changed, message):
    arguments = {"keypoints": torch.ones(1, 1, 2, 2), "visible": torch.ones(1, 1, 2), "graph": [(0, 1)], "width": 5.0}
    with pytest.raises(ValueError, match=f"paf_targets: .*{re.escape(message)}"):
        for_deeplabcut.paf_targets(**(arguments | changed), size=(4, 4), stride=4.0)


def test_a_graph_and_a_size_of_any_kind():
    keypoints, visible = torch.tensor([[[[2.0, 6.0], [14.0, 6.0]]]]), torch.ones(1, 1, 2)
    ours = for_deeplabcut.paf_targets(keypoints, visible, (4, 4), 4, [(0, 1)], 5.0)
    assert torch.equal(for_deeplabcut.paf_targets(keypoints, visible, (4, 4), 4, torch.tensor([[0, 1]]), 5.0), ours)
    many = for_deeplabcut.paf_targets(keypoints, visible, (4, 4), 4, [(1, 0)] * 256 + [(0, 1)], 5.0)
    assert torch.equal(many, torch.cat((-ours.repeat(1, 256, 1, 1), ours), 1))
    locref = for_deeplabcut.heatmap_targets(keypoints, visible, (4, 5), 4).locref
    for size in ([4, 5], np.array([4, 5])):
        assert torch.equal(for_deeplabcut.heatmap_targets(keypoints, visible, size, 4).locref, locref)


@pytest.mark.parametrize("stride", (4, 16))
def test_pixels_at_the_ends_of_limbs_belong_to_them(stride):
    """Of keypoints in whole pixels, in the arithmetic of integers. In DeepLabCut rounding decides."""
    generator = torch.Generator().manual_seed(0)
    size, width = (20, 30), 20
    keypoints = (torch.rand(16, 1, 2, 2, generator=generator) * torch.tensor([60, 40])).round() * (stride // 2)
    start, end = keypoints.long()[:, 0, :, :, None, None].unbind(1)  # (16, 2, 1, 1)
    x, y = (torch.arange(n) * stride + stride // 2 for n in (size[1], size[0]))
    (vx, vy), dx, dy = (end - start).unbind(1), x - start[:, 0], y[:, None] - start[:, 1]
    along, across, squared = vx * dx + vy * dy, vx * dy - vy * dx, vx**2 + vy**2
    inside = (along >= 0) & (along <= squared) & (across**2 <= width**2 * squared)
    assert ((along == 0) | (along == squared))[inside].sum() > 5
    level = torch.where(inside, 1 - across.abs() / squared.sqrt() / width, 0.0)
    actual = for_deeplabcut.paf_targets(keypoints, torch.ones(16, 1, 2), size, stride, [(0, 1)], width)
    expected = torch.stack((level * vx / squared.sqrt(), level * vy / squared.sqrt()), 1)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("stride", (2.5, 3.0, 8.0))
def test_deeplabcuts_fields(stride):
    targets = need("deeplabcut.pose_estimation_pytorch.models.target_generators.pafs_targets")
    graph = [[0, 1], [1, 2], [3, 0]]
    generator = targets.PartAffinityFieldGenerator(graph, width=20.0)
    outputs = {"heatmap": torch.zeros(2, 4, 20, 30), "paf": torch.zeros(2, 6, 20, 30)}
    generator_of = torch.Generator().manual_seed(0)
    scale = torch.tensor([30.0 * stride, 20.0 * stride, 1.0])
    keypoints = torch.rand(2, 3, 4, 3, generator=generator_of) * scale
    keypoints[..., 2] = torch.randint(0, 3, (2, 3, 4), generator=generator_of)
    labels = {generator.label_keypoint_key: keypoints}
    expected = generator(stride, outputs, labels)["paf"]["target"]
    with for_deeplabcut.replace():
        actual = generator(stride, outputs, labels)["paf"]["target"]
    assert expected.abs().max() > 0.5
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ("gaussian", "plateau"))
def test_targets_decode_to_their_keypoints(kind):
    keypoints = torch.tensor([[[[61.0, 40.5], [100.25, 77.0]]]])
    targets = for_deeplabcut.heatmap_targets(keypoints, torch.ones(1, 1, 2), (20, 30), 8.0, kind=kind)
    poses = for_deeplabcut.decode(targets.heatmaps, targets.locref, 8.0, apply_sigmoid=False)
    torch.testing.assert_close(poses[..., :2], keypoints, rtol=0, atol=1e-4)


def test_other_kinds_are_refused():
    with pytest.raises(ValueError, match="kind must be one of gaussian, plateau, got 'disc'"):
        for_deeplabcut.heatmap_targets(torch.ones(1, 1, 1, 2), torch.ones(1, 1, 1), (4, 4), 8.0, kind="disc")
    with pytest.raises(ValueError, match="compat must be 'deeplabcut' or None, got 'mmpose'"):
        for_deeplabcut.heatmap_targets(torch.ones(1, 1, 1, 2), torch.ones(1, 1, 1), (4, 4), 8, compat="mmpose")
    with pytest.raises(ValueError, match="paf_targets: compat must be 'deeplabcut' or None, got 'mmpose'"):
        for_deeplabcut.paf_targets(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2), (4, 4), 8, [(0, 1)], 9, compat="mmpose")
    with pytest.raises(ValueError, match="paf_targets: stride must be an integer with compat='deeplabcut', got 2.5"):
        for_deeplabcut.paf_targets(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2), (4, 4), 2.5, [(0, 1)], 9)
    with pytest.raises(ValueError, match="stride must be an integer with compat='deeplabcut', got 2.5"):
        for_deeplabcut.heatmap_targets(torch.ones(1, 1, 1, 2), torch.ones(1, 1, 1), (4, 4), 2.5)


def test_no_value_is_read_on_the_device():
    """Tensors on "meta" have no values: whatever reads one fails, as it would wait for a GPU."""
    maps, keypoints = torch.empty(2, 3, 20, 30, device="meta"), torch.empty(2, 4, 3, 2, device="meta")
    visible = keypoints[..., 0]
    assert for_sleap.find_global_peaks(maps, refinement="integral")[0].shape == (2, 3, 2)
    assert for_deeplabcut.decode(maps, maps.repeat(1, 2, 1, 1), 8.0).shape == (2, 1, 3, 3)
    for kind in ("gaussian", "plateau"):
        targets = for_deeplabcut.heatmap_targets(keypoints, visible, (20, 30), 8.0, kind=kind)
        assert targets.locref.shape == (2, 6, 20, 30)
    fields = for_deeplabcut.paf_targets(keypoints, visible, (20, 30), 8.0, [(0, 1)], 20.0)
    assert fields.shape == (2, 2, 20, 30) and fields.device.type == "meta"
