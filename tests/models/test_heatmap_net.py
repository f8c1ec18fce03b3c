"""HeatmapNet: layouts, MoveNet's numbers and decoding, all people in an image."""

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import tfjs_graph
import torch
from PIL import Image
from system_contract import check_compile, check_phases, check_poses, count, some_people

from pypose_ops import oks
from pypose_ops.cli.main import main
from pypose_ops.errors import InputError
from pypose_ops.models import build, pretrained
from pypose_ops.models.inference import find_people
from pypose_ops.models.modules import person_centres
from pypose_ops.models.modules.image_pyramid import image_pyramid
from pypose_ops.models.person_finder import find_boxes, finder_of
from pypose_ops.models.weights.files import load_weights
from pypose_ops.models.weights.movenet import load_movenet
from pypose_ops.skeletons import COCO, LSP

HEADS = {"head": "kpt_heatmap_0", "center": "center_0", "regress": "kpt_regress_0", "offset": "kpt_offset_0"}


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    return tfjs_graph.write(tmp_path_factory.mktemp("movenet"))


def movenets():
    """The graph that Google published, where PYPOSE_OPS_MOVENET says where its json is."""
    path = os.environ.get("PYPOSE_OPS_MOVENET")
    return [Path(p) for p in path.split(os.pathsep)] if path else []


@pytest.mark.parametrize("backbone", ["mobilenet_v2", "efficientnet_lite0", "resnet18", "vgg16"])
def test_a_system_of_every_backbone(backbone):
    narrow = {} if backbone == "efficientnet_lite0" else {"width": 0.25}
    system = build("heatmap_net", 14, "compact", backbone=backbone, input_size=(64, 96), **narrow)
    people = some_people(system)
    check_phases(system, people)
    check_poses(system, people, 1)
    assert system(people.images)[0].shape == (3, 14, 16, 24)


def test_it_compiles():
    system = build("heatmap_net", 14, "compact", input_size=(64, 64))
    check_compile(system, some_people(system))


@pytest.mark.parametrize(
    ("preset", "options", "parameters"),
    [
        ("movenet_lightning", {"people": True}, 2_317_974),
        ("movenet_thunder", {"people": True}, 6_226_046),
    ],
)
def test_published_number_of_parameters(preset, options, parameters):
    with torch.device("meta"):
        assert count(build("heatmap_net", 17, preset, **options)) == parameters


def test_compact_is_small():
    with torch.device("meta"):
        assert count(build("heatmap_net", 14, "compact")) <= 3_000_000


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("mobilenet_v2", (24, 32, 64, 1280)),
        ("efficientnet_lite0", (24, 40, 112, 320)),
        ("efficientnet_lite2", (24, 48, 120, 352)),
        ("resnet50", (256, 512, 1024, 2048)),
        ("vgg16", (256, 512, 512, 512)),
    ],
)
def test_maps_of_backbones(name, channels):
    with torch.device("meta"):
        backbone = image_pyramid(name)[0].eval()
    maps = backbone.stages(torch.empty(1, 3, 128, 64, device="meta"))
    assert tuple(backbone.channels) == channels
    assert [tuple(m.shape) for m in maps] == [
        (1, c, 128 // s, 64 // s) for c, s in zip(channels, (4, 8, 16, 32), strict=True)
    ]


@pytest.mark.parametrize(
    ("name", "options"), [("alexnet", {}), ("resnet50", {"norm": False}), ("efficientnet_lite0", {"width": 0.5})]
)
def test_backbones_that_are_none(name, options):
    with pytest.raises(ValueError, match="backbone must be"):
        image_pyramid(name, **options)


def check_against_graph(path, atol):
    """Every head in float64: only the order of summation differs."""
    system, _ = load_movenet(path)
    system.double()
    images = 2 * torch.rand(2, 3, *system.input_size, dtype=torch.float64) - 1
    with torch.no_grad():
        features = system.features(images)
        for ours, theirs in HEADS.items():
            expected = tfjs_graph.run(path, theirs, images)
            assert expected.abs().max() > 0.1
            torch.testing.assert_close(getattr(system, ours)(features), expected, rtol=0, atol=atol)


def test_movenet_is_its_graph(graph):
    check_against_graph(graph, 1e-9)


@pytest.mark.skipif(not movenets(), reason="no MoveNet: set PYPOSE_OPS_MOVENET to movenet-lightning.json")
def test_the_published_movenet_is_its_graph():
    for path in movenets():
        check_against_graph(path, 1e-9)


def test_export_of_movenet(graph, tmp_path, capsys):
    assert main(["export", str(graph), "--from", "movenet", "--out", str(tmp_path / "m"), "--dtype", "float32"]) == 0
    assert "heatmap_net movenet_lightning, 2,317,974 parameters" in capsys.readouterr().out
    system, info = load_weights(tmp_path / "m")
    assert info["skeleton"] == "coco" and info["options"] == {"people": True}
    for a, b in zip(system.state_dict().values(), load_movenet(graph)[0].state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: g.pop("weightsManifest"), "expected a graph model of TensorFlow.js"),
        (lambda g: g["weightsManifest"][0]["paths"].append("none.bin"), "none.bin: no such file"),
        (lambda g: g["weightsManifest"][0]["weights"].pop(), "bytes, "),
        (lambda g: g["modelTopology"]["node"].pop(), "expected MoveNet SinglePose"),
        (lambda g: g["modelTopology"]["node"][-1].update(name="other"), "its graph has a convolution other"),
    ],
)
def test_graphs_that_are_none(graph, tmp_path, capsys, change, message):
    content = json.loads(graph.read_text())
    change(content)
    (tmp_path / "graph.json").write_text(json.dumps(content))
    (tmp_path / "graph.bin").write_bytes((graph.parent / "graph.bin").read_bytes())
    command = ["export", str(tmp_path / "graph.json"), "--from", "movenet", "--out", str(tmp_path / "out")]
    assert main(command) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and message in lines[0]


def test_no_graph(tmp_path, capsys):
    (tmp_path / "text.json").write_text("text")
    for name in ("none.json", "text.json"):
        assert main(["export", str(tmp_path / name), "--from", "movenet", "--out", str(tmp_path / "out")]) == 2
        assert name in capsys.readouterr().err


def people_maps(centres, joints, size=(24, 32)):
    """A map of centres with a peak at each pixel of ``centres``, and the displacements from there to ``joints``."""
    center, regress = torch.zeros(1, 1, *size), torch.zeros(1, 2 * joints.shape[1], *size)
    for n, (x, y) in enumerate(centres):
        center[0, 0, y, x] = 0.9 - 0.1 * n
        regress[0, :, y, x] = (joints[n] - torch.tensor([x, y])).flip(-1).flatten()
    return center, regress


def test_people_are_where_their_centres_say():
    joints = 4 + 16 * torch.rand(2, 5, 2)
    center, regress = people_maps([(8, 12), (20, 6)], joints)
    found = person_centres.people_at_centres(center, regress, 0.3, 4)
    assert found.counts.tolist() == [2] and found.joints.shape == (1, 4, 5, 2)
    torch.testing.assert_close(found.joints[0, :2], 4 * (joints + 0.5) - 0.5)
    torch.testing.assert_close(found.scores[0, :2], torch.tensor([0.9, 0.8]))
    assert person_centres.people_at_centres(center, regress, 0.85, 4).counts.tolist() == [1]


def test_the_person_nearest_to_the_middle_is_meant():
    """Two people with the same probabilities of joints: those of the one in the middle are higher."""
    joints = torch.tensor([[[3.0, 3.0]], [[17.0, 14.0]]])
    center, regress = people_maps([(2, 2), (16, 12)], joints)
    maps = torch.zeros(1, 1, 24, 32)
    maps[0, 0, 3, 3] = maps[0, 0, 14, 17] = 0.5
    near = person_centres.near_person(maps, center, regress)
    assert near.flatten().argmax() == 14 * 32 + 17
    torch.testing.assert_close(near[0, 0, 14, 17], torch.tensor(0.5 / 1.8))
    far = person_centres.near_person(maps, center, regress, 100.0)[0, 0]
    torch.testing.assert_close(far[3, 3] / far[14, 17], torch.tensor(100 / (100 + math.hypot(14, 11))))


def test_nearness_is_an_option():
    """The larger, the less a probability is weighted by where its joint is."""
    options, images, found = {"people": True, "input_size": (64, 64)}, torch.randn(1, 3, 64, 64), []
    for nearness in (0.1, 8192):
        torch.manual_seed(0)
        system = build("heatmap_net", 3, "movenet_lightning", nearness=nearness, **options).eval()
        found.append(system.poses(images)[-1])
    assert (found[1].scores >= found[0].scores).all() and not torch.equal(found[0].coords, found[1].coords)
    for wrong in (0, -1.0, math.inf, math.nan, None, "3"):
        with pytest.raises(ValueError, match="HeatmapNet: nearness must be above 0, at most 8192, got"):
            build("heatmap_net", 3, "movenet_lightning", nearness=wrong, **options)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_displacements_in_half_precision_keep_their_fractions(dtype):
    """Of pixels beyond 32 the sum with a pixel, rounded to bfloat16, would be off by up to 0.125."""
    keypoints, visible = torch.tensor([[[[4 * 47.1 - 0.5, 4 * 40.1 - 0.5]]]]), torch.ones(1, 1, 1, dtype=torch.bool)
    offset = torch.full((1, 1, 2, 48, 64), 0.12, dtype=dtype)
    grid = torch.stack(torch.meshgrid(torch.arange(48.0), torch.arange(64.0), indexing="ij"))
    offset += (torch.tensor([40.0, 47.0])[:, None, None] - grid).flip(0)
    expected = person_centres.offset_loss(offset.float(), keypoints, visible)
    torch.testing.assert_close(person_centres.offset_loss(offset, keypoints, visible), expected)
    peaks = person_centres.joint_pixels(torch.ones(1, 1, 48, 64, dtype=dtype), offset, torch.tensor([[[47, 40]]]))
    torch.testing.assert_close(peaks.coords[0, 0], keypoints[0, 0, 0], atol=0.1, rtol=0)
    regress = torch.full((1, 2, 48, 64), -3.4, dtype=dtype)
    expected = person_centres.regress_loss(regress.float(), keypoints[:, :, 0], keypoints, visible)
    torch.testing.assert_close(person_centres.regress_loss(regress, keypoints[:, :, 0], keypoints, visible), expected)


def test_joints_are_in_their_pixels():
    maps, offset = torch.zeros(1, 2, 8, 8), torch.zeros(1, 2, 2, 8, 8)
    maps[0, :, 5, 3], offset[0, :, :, 5, 3] = 0.7, torch.tensor([[0.5, 0.5], [0.25, 1.0]])
    peaks = person_centres.joint_pixels(maps, offset, torch.tensor([[[3, 5], [3, 5]]]))
    torch.testing.assert_close(peaks.coords[0], torch.tensor([[13.5, 21.5], [12.5, 23.5]]))
    assert peaks.scores.tolist() == [[pytest.approx(0.7)] * 2]


def some_joints(people=2, joints=5, size=(24, 32)):
    """Keypoints ``(2, P, K, 2)`` in images four times the size of the maps, not near the border; the visible ones."""
    keypoints = 8 + torch.rand(2, people, joints, 2) * torch.tensor([4 * size[1] - 17.0, 4 * size[0] - 17.0])
    visible = torch.rand(2, people, joints) < 0.7
    visible[:, :, :1] = True
    return torch.where(visible[..., None], keypoints, torch.nan), visible


def test_the_centre_of_a_person_is_the_mean_of_the_labelled_joints():
    keypoints, visible = some_joints()
    visible[1, 1] = False
    centers, known = person_centres.person_centers(keypoints, visible)
    assert known.tolist() == [[True, True], [True, False]]
    torch.testing.assert_close(centers[0, 1], keypoints[0, 1][visible[0, 1]].mean(0))
    assert centers[1, 1].tolist() == [0, 0]


def test_what_decodes_to_the_joints_costs_nothing():
    """The displacements from every pixel to one person's joints, and from the corner of every pixel to each joint."""
    keypoints, visible = some_joints(people=1)
    centers, _ = person_centres.person_centers(keypoints, visible)
    grid = torch.stack(torch.meshgrid(torch.arange(24.0), torch.arange(32.0), indexing="ij"))  # y, x
    joints = torch.where(visible[..., None], (keypoints + 0.5) / 4, 7.0)[:, 0]
    away = joints.flip(-1)[..., None, None] - grid
    regress, offset = (away - 0.5).flatten(1, 2), away.flip(2)
    assert person_centres.regress_loss(regress, centers, keypoints, visible) < 1e-5
    assert person_centres.offset_loss(offset, keypoints, visible) < 1e-5
    peaks = person_centres.joint_pixels(torch.ones(2, 5, 24, 32), offset, joints.long())
    torch.testing.assert_close(peaks.coords[visible[:, 0]], keypoints[:, 0][visible[:, 0]], atol=1e-3, rtol=0)
    # Of one joint 3 pixels off in y, at every pixel.
    regress[0, 0] += 3
    offset[0, 0, 1] += 3
    for loss in (
        person_centres.regress_loss(regress, centers, keypoints, visible),
        person_centres.offset_loss(offset, keypoints, visible),
    ):
        torch.testing.assert_close(loss, 3 / (2 * visible.sum()), atol=1e-5, rtol=1e-4)


def test_displacements_count_next_to_the_joint_alone():
    keypoints, visible = torch.tensor([[[[41.0, 30.0]]]]), torch.ones(1, 1, 1, dtype=torch.bool)  # pixel 10, 7
    for loss in (
        lambda m: person_centres.regress_loss(m[:, 0], keypoints[:, :, 0], keypoints, visible),
        lambda m: person_centres.offset_loss(m, keypoints, visible),
    ):
        away = torch.randn(1, 1, 2, 24, 32, requires_grad=True)
        loss(away).backward()
        y, x = away.grad[0, 0].any(0).nonzero().T.unique(dim=1)
        assert (x.min(), x.max(), y.min(), y.max(), len(x)) == (9, 11, 6, 8, 9)


def test_joints_that_are_not_labelled_or_not_in_the_maps():
    keypoints, visible = some_joints()
    keypoints[0, 0, 0], keypoints[1, 0, 0] = torch.tensor([1e30, -5.0]), torch.tensor([-1e9, 4.0])
    visible[:, 1, 0] = False
    regress = torch.randn(2, 10, 24, 32, requires_grad=True)
    offset = torch.randn(2, 5, 2, 24, 32, requires_grad=True)
    centers, _ = person_centres.person_centers(keypoints, visible)
    loss = person_centres.offset_loss(offset, keypoints, visible)
    (loss + person_centres.regress_loss(regress, centers, keypoints, visible)).backward()
    assert loss.isfinite() and regress.grad.isfinite().all() and offset.grad.isfinite().all()
    assert offset.grad.any() and not offset.grad[:, 0].any()
    none = torch.zeros_like(visible)
    assert person_centres.offset_loss(offset, keypoints, none) == 0
    assert person_centres.regress_loss(regress, centers, keypoints, none) == 0


def test_heads_for_people_are_trained():
    """With the other people of the crop: every term of the loss falls."""
    torch.manual_seed(0)
    small = {"width": 0.25, "pyramid": (8, 8, 8), "features": 8, "hidden": 8, "norm": True, "input_size": (64, 96)}
    system = build("heatmap_net", 14, "movenet_lightning", people=True, **small)
    batch = some_people(system)
    check_phases(system, batch)
    optimizer, losses = torch.optim.Adam(system.parameters(), 1e-2), []
    for _ in range(60):
        losses.append(system.losses(batch))
        optimizer.zero_grad()
        sum(losses[-1].values()).backward()
        optimizer.step()
    assert set(losses[0]) == {"stage1", "center", "regress", "offset"}
    assert all(losses[-1][name] < 0.9 * losses[0][name] for name in losses[0])
    check_poses(system, batch, 1)


@pytest.mark.parametrize(("name", "skeleton"), [("coco17", COCO), ("lsp14", LSP)])
def test_a_mirrored_image_has_the_mirrored_pose(name, skeleton):
    """With a flip test both see the same two views."""
    system, _ = pretrained(name)
    images = torch.randn(1, 3, 192, 192)
    here, there = (system.poses(i, flip_pairs=skeleton.flip_pairs)[-1] for i in (images, images.flip(-1)))
    mirrored = there.coords[:, list(skeleton.flip_index)]
    torch.testing.assert_close(here.scores, there.scores[:, list(skeleton.flip_index)], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(here.coords[..., 1], mirrored[..., 1], rtol=1e-3, atol=0.01)
    torch.testing.assert_close(here.coords[..., 0], 191 - mirrored[..., 0], rtol=1e-3, atol=0.01)


def test_what_needs_the_heads_for_people():
    plain = build("heatmap_net", 14, "compact")
    with pytest.raises(InputError, match="people=True"):
        plain.people(torch.zeros(1, 3, 64, 64))
    assert finder_of(plain).config.people
    system, _ = pretrained("coco17")
    assert finder_of(system) is system
    other = build("heatmap_net", 14, "movenet_lightning", people=True)
    assert finder_of(other).num_joints == 17  # it knows crops of one person
    with pytest.raises(InputError, match="scales must be"):
        system.poses(torch.zeros(1, 3, 192, 192), scales=(0.9, 1.0))


def test_nobody_in_an_empty_image(tmp_path, capsys):
    Image.new("RGB", (200, 90), "grey").save(tmp_path / "grey.png")
    boxes, scores = find_boxes(pretrained()[0], Image.open(tmp_path / "grey.png"))
    assert boxes.shape == (0, 4) and scores.shape == (0,)
    assert main(["predict", str(tmp_path / "grey.png"), "--out", str(tmp_path / "out")]) == 0
    assert "0 people" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "grey.json").read_text())["people"] == []


def test_one_person_is_found_once():
    """Cut off at the hips: the guesses below them differ between the two boxes that are found."""
    image = pytest.importorskip("skimage.data").astronaut()
    system = pretrained()[0]
    boxes, scores = find_boxes(system, image)
    assert len(boxes) == 2
    found, *_ = find_people(system, COCO, image, boxes, scores, torch.zeros(len(boxes)))
    assert len(found) == 1


@pytest.mark.parametrize(("flip", "expected"), [(False, 0.806), (True, 0.817)])
def test_everybody_in_photographs(shared_data, flip, expected):
    """The twelve annotated people of four COCO photographs, without boxes; OpenPose's maps: 12 found, mean OKS 0.83."""
    folder = shared_data / "people" / "coco"
    annotations = json.loads((folder / "test_coco.json").read_text())
    system, best = pretrained()[0], []
    for entry in annotations["images"]:
        image = np.asarray(Image.open(folder / entry["file_name"]).convert("RGB"))
        boxes, scores = find_boxes(system, image)
        found, *_ = find_people(system, COCO, image, boxes, scores, torch.zeros(len(boxes)), flip=flip)
        for person in annotations["annotations"]:
            if person["image_id"] == entry["id"] and person["num_keypoints"]:
                truth = torch.tensor(person["keypoints"], dtype=torch.float32).view(17, 3)
                similar = oks(found, truth[None, :, :2], torch.tensor([person["area"]]), visible=truth[None, :, 2] > 0)
                best.append(float(similar.max()))
    assert len(best) == 12 and sum(value > 0.5 for value in best) >= 11
    assert np.mean(best) >= expected
