"""What is trained how fast, what keeps still, and how often each data set is seen."""

import pytest
import torch
from torch import nn

from pypose_ops.errors import InputError
from pypose_ops.models import build, pretrained
from pypose_ops.models.training.levers import (
    WeightedSampler,
    check_names,
    freeze,
    one_cycle,
    parameter_groups,
    progress,
)
from pypose_ops.models.weights.transfer import begin_with
from pypose_ops.skeletons import COCO, LSP, MPII


def net():
    return nn.ModuleDict({"backbone": nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)), "head": nn.Linear(3, 1)})


def test_learning_rates_by_name():
    module = net()
    groups = parameter_groups(module, 0.1, {"backbone": 0.5, "backbone.1": 0.1})
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    expected = {"backbone.0": 0.05, "backbone.1": 0.01, "head": 0.1}
    for name, parameter in module.named_parameters():
        assert rates[id(parameter)] == pytest.approx(expected[name.rpartition(".")[0]])


def test_what_is_frozen_keeps_still():
    module = net().train()
    freeze(module, ["backbone"])
    assert [name for name, p in module.named_parameters() if p.requires_grad] == ["head.weight", "head.bias"]
    before = module["backbone"][1].running_mean.clone()
    module["backbone"](torch.randn(8, 2))
    assert torch.equal(before, module["backbone"][1].running_mean) and module["head"].training
    assert len(parameter_groups(module, 0.1, {})) == 1


def test_names_that_are_none():
    with pytest.raises(InputError, match="--freeze: no parameter starts with back; they start with backbone, head"):
        check_names("--freeze", net(), ["back"])


def test_data_sets_by_weight():
    sampler = WeightedSampler([10, 20], [1.0, 2.5], epochs=4, last=1)
    seen = torch.bincount(torch.tensor(list(sampler)), minlength=30)
    assert seen[:10].eq(1).all() and len(sampler) == 60 and seen[10:].sum() == 50
    assert set(seen[10:].tolist()) == {2, 3}
    sampler.set_epoch(3)
    assert sorted(sampler) == list(range(10)) and len(sampler) == 10
    assert sampler.steps(batch=5) == [12, 12, 12, 2] and sampler.fills(5)
    # No epoch may be without a batch: then the incomplete ones count too.
    assert sampler.steps(batch=40) == [2, 2, 2, 1] and not sampler.fills(40)


def test_short_epochs_at_the_end_have_their_share_of_the_learning_rate():
    steps = [100, 100, 5, 5]
    shares = [progress(step, steps) for step in range(sum(steps) + 1)]
    assert [shares[n] for n in (0, 50, 100, 200, 205, 210)] == [0, 0.125, 0.25, 0.5, 0.75, 1]
    assert shares == sorted(set(shares))
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 1.0)
    torchs = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, 201, pct_start=11 / 201, cycle_momentum=False)
    for step in range(201):
        assert one_cycle(step / 200, rise=0.05) == pytest.approx(torchs.get_last_lr()[0], abs=1e-6)
        optimizer.step()
        if step < 200:
            torchs.step()


def test_an_order_follows_from_seed_and_epoch():
    orders = []
    for seed, epoch in ((0, 0), (0, 0), (0, 1), (1, 0)):
        sampler = WeightedSampler([50], [0.5], epochs=2, seed=seed)
        sampler.set_epoch(epoch)
        orders.append(list(sampler))
    assert orders[0] == orders[1] and len({tuple(o) for o in orders}) == 3 and len(set(orders[0])) == 25


def test_ranks_share_an_epoch():
    whole = list(WeightedSampler([7, 4], epochs=1))
    parts = [list(WeightedSampler([7, 4], epochs=1, rank=r, world=2)) for r in range(2)]
    assert [len(p) for p in parts] == [6, 6]
    assert [i for pair in zip(*parts, strict=True) for i in pair][:11] == whole


@pytest.mark.parametrize("skeleton", [LSP, MPII])
def test_weights_of_other_joints_are_taken_by_name(skeleton):
    other, info = pretrained("coco17")
    system = build("heatmap_net", len(skeleton), "movenet_lightning")
    begin_with(system, skeleton, "file", other, info)
    assert torch.equal(system.backbone.stem.conv.weight, other.backbone.stem.conv.weight)
    ours, theirs = system.head.out.weight, other.head.out.weight
    for name in set(skeleton.joints) & set(COCO.joints):
        assert torch.equal(ours[skeleton.joints.index(name)], theirs[COCO.joints.index(name)])
    ears = theirs[[COCO.joints.index(side + "_ear") for side in ("left", "right")]].mean(0)
    assert torch.equal(ours[skeleton.joints.index("head_top")], ears)


def test_heads_for_people_are_taken_by_name_too():
    """Of each joint they have two rows, y and x."""
    other, info = pretrained("coco17")
    system = build("heatmap_net", len(LSP), "movenet_lightning", people=True)
    begin_with(system, LSP, "file", other, info)
    for ours, theirs in ((system.regress, other.regress), (system.offset, other.offset)):
        rows, expected = (head.out.bias.unflatten(0, (-1, 2)) for head in (ours, theirs))
        assert torch.equal(rows[LSP.joints.index("left_wrist")], expected[COCO.joints.index("left_wrist")])
        shoulders = expected[[COCO.joints.index(side + "_shoulder") for side in ("left", "right")]].mean(0)
        assert torch.equal(rows[LSP.joints.index("neck")], shoulders)
        assert torch.equal(ours.hidden.depthwise.weight, theirs.hidden.depthwise.weight)
    assert torch.equal(system.center.out.weight, other.center.out.weight)


@pytest.mark.parametrize("people", [False, True])
def test_weights_of_the_same_joints(people):
    other, info = pretrained("coco17")
    system = build("heatmap_net", len(COCO), "movenet_lightning", people=people)
    assert begin_with(system, COCO, "file", other, info) == []
    theirs = other.state_dict()
    assert all(torch.equal(t, theirs[name]) for name, t in system.state_dict().items())


def test_heads_that_the_file_lacks_keep_their_values():
    other, info = build("heatmap_net", 14, "movenet_lightning"), {"skeleton": "lsp"}
    for skeleton in (LSP, COCO):
        system = build("heatmap_net", len(skeleton), "movenet_lightning", people=True)
        before = system.center.out.weight.clone()
        fresh = begin_with(system, skeleton, "file", other, info)
        assert {name.split(".")[0] for name in fresh} == {"center", "regress", "offset"}
        assert torch.equal(system.center.out.weight, before)
        assert torch.equal(system.backbone.stem.conv.weight, other.backbone.stem.conv.weight)


def test_weights_of_other_joints_that_do_not_fit():
    other, info = pretrained("coco17")
    with pytest.raises(InputError, match="file: the tensors do not fit the system"):
        begin_with(build("heatmap_net", 14, "compact"), LSP, "file", other, info)
    with pytest.raises(
        InputError, match="weights for the joints of coco, expected those of lsp; and .* another shape, by"
    ):
        begin_with(build("stacked_hourglass", 14, "compact"), LSP, "file", other, info)
