"""The constants are consistent with themselves, and conversion keeps what both skeletons have."""

import pytest
import torch

from pypose_ops.skeletons import AIC, COCO, FLIC, LSP, MPII, SKELETONS, convert, joint_map

each = pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=SKELETONS)


def mirrored(name):
    swap = {"left": "right", "right": "left"}
    side, _, rest = name.partition("_")
    return f"{swap[side]}_{rest}" if side in swap else name


def test_joint_counts():
    assert {name: len(s) for name, s in SKELETONS.items()} == {"coco": 17, "mpii": 16, "lsp": 14, "aic": 14, "flic": 11}


@each
def test_flip_pairs_swap_left_and_right_of_every_joint(skeleton):
    assert len(set(skeleton.joints)) == len(skeleton)
    assert [skeleton.joints[i] for i in skeleton.flip_index] == [mirrored(name) for name in skeleton.joints]


@each
def test_edges_connect_everything_and_are_symmetric(skeleton):
    edges = {frozenset(edge) for edge in skeleton.edges}
    flip = skeleton.flip_index
    assert len(edges) == len(skeleton.edges)
    assert {frozenset(flip[i] for i in edge) for edge in edges} == edges
    reached = {0}
    for _ in skeleton.edges:
        reached |= {i for edge in edges if edge & reached for i in edge}
    assert reached == set(range(len(skeleton)))


@each
def test_constants_are_symmetric(skeleton):
    flip = skeleton.flip_index
    assert {flip[i] for i in skeleton.upper_body} == set(skeleton.upper_body)
    lower = {i for i, name in enumerate(skeleton.joints) if name.split("_")[-1] in ("knee", "ankle")}
    assert not lower & set(skeleton.upper_body)
    if skeleton.weights is not None:
        assert [skeleton.weights[i] for i in flip] == list(skeleton.weights)
    if skeleton.sigmas is not None:
        assert len(skeleton.sigmas) == len(skeleton)


def test_sigmas_of_coco():
    """The constants of COCO's own evaluation, which lists them times ten."""
    tenfold = [0.26, 0.25, 0.25, 0.35, 0.35, 0.79, 0.79, 0.72, 0.72, 0.62, 0.62, 1.07, 1.07, 0.87, 0.87, 0.89, 0.89]
    assert COCO.sigmas == pytest.approx([sigma / 10 for sigma in tenfold])


def test_lsp_to_mpii_follows_the_published_order():
    assert joint_map(LSP.joints, MPII.joints) == [0, 1, 2, 3, 4, 5, -1, -1, 12, 13, 6, 7, 8, 9, 10, 11]


@pytest.mark.parametrize(("source", "target", "common"), [(COCO, MPII, 12), (MPII, AIC, 14), (FLIC, COCO, 11)])
def test_convert_there_and_back(source, target, common):
    keypoints = torch.rand(2, 3, len(source), 2, dtype=torch.float64)
    there, seen = convert(keypoints, source, target)
    assert there.dtype == torch.float64 and there.shape == (2, 3, len(target), 2)
    assert (seen.sum(-1) == common).all()
    assert torch.equal(seen, there.isfinite().all(-1))
    back, seen = convert(there, target.name, source.name, visible=seen)
    assert (seen.sum(-1) == common).all()
    assert torch.equal(back[seen], keypoints[seen])
    assert back[~seen].isnan().all()


def test_convert_keeps_invisible_joints_invisible():
    visible = torch.ones(16)
    visible[MPII.joints.index("left_wrist")] = 0
    _, seen = convert(torch.rand(16, 2), "mpii", "lsp", visible=visible)
    assert [LSP.joints[i] for i in torch.nonzero(~seen).flatten()] == ["left_wrist"]


def test_convert_of_nobody():
    keypoints, visible = convert(torch.empty(0, 17, 2), "coco", "aic")
    assert keypoints.shape == (0, 14, 2) and visible.shape == (0, 14)


def test_convert_names_what_is_wrong():
    with pytest.raises(ValueError, match=r"keypoints must be \(\.\.\., 17, 2\) for coco, got \(16, 2\)"):
        convert(torch.rand(16, 2), "coco", "mpii")
    with pytest.raises(ValueError, match=r"visible must be \(17,\) like keypoints, got \(16,\)"):
        convert(torch.rand(17, 2), "coco", "mpii", visible=torch.ones(16))
    with pytest.raises(ValueError, match="one of coco, mpii, lsp, aic, flic, got 'body25'"):
        convert(torch.rand(17, 2), "coco", "body25")
