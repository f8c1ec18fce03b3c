"""oks under the contract of op_contract.py, and by hand."""

import math

import large_inputs as large
import pytest
import torch
from grouping_inputs import INF, NAN, SIGMAS, random_source
from op_contract import Bad, Sample, check_op

import pypose_ops
from pypose_ops import oks, reference
from pypose_ops.skeletons import AIC

rand, _ = random_source(6)

# oks ------------------------------------------------------------------------------------------------------------------
PRED, TARGET, AREA = 50 * rand(2, 4, 3, 2), 50 * rand(2, 5, 3, 2), 4000 * rand(2, 5) + 500


BOXES = torch.cat((50 * rand(2, 5, 2), 60 + 50 * rand(2, 5, 2)), -1)


VISIBLE = torch.tensor([[[2, 0, 1], [0, 0, 0], [1, 1, 1], [0, 0, 1], [1, 0, 0]]]).expand(2, 5, 3)


STRANGE = torch.tensor([NAN, 1.0, INF, 2.0, 3.0, -INF, 1e30, 1e38, -1e38, 0.0, 4.0, 4.0]).view(1, 2, 3, 2)


DEFAULTS = {"sigmas": SIGMAS}


GRAD = ("pred",)


TestOks = check_op(
    pypose_ops.oks,
    reference.oks,
    [
        Sample("plain", (PRED, TARGET, AREA), DEFAULTS, grad=GRAD, traced=True),
        Sample("visible", (PRED, TARGET, AREA), DEFAULTS | {"visible": VISIBLE}, grad=GRAD, traced=True),
        Sample("boxes for areas", (PRED, TARGET), DEFAULTS | {"boxes": BOXES}, grad=GRAD),
        Sample(
            "boxes for people without joints",
            (PRED * 6 - 100, TARGET, AREA),
            DEFAULTS | {"boxes": BOXES, "visible": VISIBLE},
            grad=GRAD,
            traced=True,
        ),
        Sample("same people", (TARGET, TARGET, AREA), DEFAULTS),
        Sample("area 0", (TARGET[:, :4], TARGET, torch.zeros(2, 5)), DEFAULTS),
        Sample(
            "strange areas", (PRED, TARGET, torch.tensor([NAN, INF, -INF, -1.0, 1e-30]).expand(2, 5)), DEFAULTS
        ),
        Sample("strange predictions", (STRANGE, TARGET[:1], AREA[:1]), DEFAULTS, grad=GRAD),
        Sample("strange targets", (PRED[:1], STRANGE, AREA[:1, :2]), DEFAULTS, grad=GRAD),
        Sample("strange targets with boxes", (PRED[:1], STRANGE, AREA[:1, :2]), DEFAULTS | {"boxes": BOXES[:1, :2]}),
        Sample("coco", (300 * rand(3, 7, 17, 2), 300 * rand(3, 9, 17, 2), 1e5 * rand(3, 9)), grad=GRAD),
        Sample(
            "ai challenger", (rand(1, 3, 14, 2), rand(1, 3, 14, 2), 100 * rand(1, 3)), {"sigmas": AIC.sigmas}, grad=GRAD
        ),
        Sample("a pair an image", (50 * rand(70, 1, 3, 2), 50 * rand(70, 1, 3, 2), 4000 * rand(70, 1)), DEFAULTS),
        Sample("many joints", (rand(1, 2, 384, 2), rand(1, 3, 384, 2), rand(1, 3) + 10), {"sigmas": [0.05] * 384}),
        Sample("many people", (50 * rand(1, 90, 3, 2), 50 * rand(1, 70, 3, 2), 4000 * rand(1, 70)), DEFAULTS),
        Sample("nobody predicted", (PRED[:, :0], TARGET, AREA), DEFAULTS, grad=GRAD),
        Sample("nobody annotated", (PRED, TARGET[:, :0], AREA[:, :0]), DEFAULTS, grad=GRAD, traced=True),
        Sample("no joints", (PRED[:, :, :0], TARGET[:, :, :0], AREA), {"sigmas": ()}),
    ],
    bad=[
        Bad("rank 2", (PRED[0, 0], TARGET, AREA), DEFAULTS, ValueError, r"oks: pred must be \(B, D, K, 2\)"),
        Bad("rank 2 target", (PRED, TARGET[0, 0], AREA), DEFAULTS, ValueError, r"oks: target must be \(B, G, K, 2\)"),
        Bad("other joints", (PRED, TARGET[:, :, :2], AREA), DEFAULTS, ValueError, "oks: target must have size 3"),
        Bad("other batch", (PRED[:1], TARGET, AREA), DEFAULTS, ValueError, "oks: target must have size 1"),
        Bad("other areas", (PRED, TARGET, AREA[:, :2]), DEFAULTS, ValueError, "oks: area must have size 5"),
        Bad("half", (PRED.half(), TARGET, AREA), DEFAULTS, ValueError, "oks: pred must be float32 or float64"),
        Bad("no area", (PRED, TARGET), DEFAULTS, ValueError, "oks: area or boxes must be given"),
        Bad("box of 3", (PRED, TARGET), {**DEFAULTS, "boxes": BOXES[..., :3]}, ValueError, "boxes must be .*, 4"),
        Bad("boxes", (PRED, TARGET, AREA), {**DEFAULTS, "boxes": BOXES[:, :1]}, ValueError, "boxes must have size 5"),
        Bad("sigmas", (PRED, TARGET, AREA), {}, ValueError, "oks: sigmas must have one value for each of 3 joints"),
        Bad("sigma 0", (PRED, TARGET, AREA), {"sigmas": (1.0, 0.0, 1.0)}, ValueError, "sigmas must be positive"),
        Bad(
            "visible", (PRED, TARGET, AREA), {**DEFAULTS, "visible": torch.ones(2, 4)}, ValueError,
            "oks: visible must broadcast",
        ),
    ],
    batched=("pred", "target", "area", "visible", "boxes"),
    second_order="oks: double backward is not supported",
)  # fmt: skip


def test_oks_by_hand():
    target = torch.tensor([[[10.0, 10.0], [20.0, 10.0]]])
    pred = torch.tensor([[[10.0, 10.0], [20.0, 14.0]], [[10.0, NAN], [20.0, 10.0]]])
    similarity = oks(pred, target, torch.tensor([100.0]), sigmas=(0.1, 0.2))
    second = math.exp(-16 / (2 * 0.4**2 * 100))
    torch.testing.assert_close(similarity, torch.tensor([[(1 + second) / 2], [0.5]]))
    only_first = oks(pred, target, torch.tensor([100.0]), sigmas=(0.1, 0.2), visible=torch.tensor([[1, 0]]))
    assert only_first.tolist() == [[1], [0]]


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64), ids=str)
def test_without_an_error_it_is_1(device, dtype):
    """However many joints count: exactly, as the ties of COCO's matching need it."""
    people = (torch.rand(17, 17, 2, dtype=dtype) * 100).to(device)
    visible = torch.ones(17, 17, device=device).tril()  # 1 to 17 of them
    assert (
        oks(people, people, torch.full((17,), 900.0, dtype=dtype, device=device), visible=visible).diagonal() == 1
    ).all()


def test_oks_of_somebody_without_joints():
    pred = torch.tensor([[[15.0, 25.0]], [[34.0, 25.0]]])
    box = torch.tensor([[10.0, 20.0, 20.0, 30.0]])  # doubled to every side: 0 ... 30, 10 ... 40
    invisible = {"sigmas": (0.1,), "visible": torch.zeros(1, 1), "boxes": box}
    similarity = oks(pred, torch.zeros(1, 1, 2), torch.tensor([100.0]), **invisible)
    torch.testing.assert_close(similarity, torch.tensor([[1.0], [math.exp(-16 / (2 * 0.04 * 100))]]))
    invisible.pop("boxes")
    assert not oks(pred, torch.zeros(1, 1, 2), torch.tensor([100.0]), **invisible).any()


LARGE = large.Case(
    lambda p, t, a: pypose_ops.oks(p, t, a),
    (large.rows(100, large.K, 2), large.rows(100, large.K, 2), large.rows(100)),
    100 * 100,
    True,
)
