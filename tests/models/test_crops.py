"""Crops of people: joints stay on their pixels, whatever the augmentation."""

import numpy as np
import pytest
import torch
from data_files import coco_file, coco_person, lsp_folder
from tiny_system import Tiny, TinyConfig

from pypose_ops import skeletons
from pypose_ops.datasets import open_dataset
from pypose_ops.models.training.crops import DRAWS, Augmentation, Crops
from pypose_ops.models.training.loading import People, eval_loader, train_loader

STILL = {f: 0.0 for f in ("scale", "rotation", "shift", "flip", "half_body", "colour")}
JOINTS = skeletons.LSP.flip_index


def draws(count, **values):
    """Random numbers that change nothing, except for those given by position."""
    table = torch.full((count, DRAWS), 0.5)
    for position, value in values.items():
        table[:, int(position[1:])] = value
    return table


def loaded_of(dataset):
    return next(iter(eval_loader(People(dataset), 64)))


@pytest.fixture
def marked(tmp_path):
    """LSP people whose images hold the number of each joint at its place: 40 (k + 1) in a blob of 5x5 pixels."""
    folder = lsp_folder(tmp_path, 2, (80, 120))
    data = open_dataset(f"lsp:{folder}")
    for s in data.samples:
        s.keypoints = np.array([[8 + 24 * (k % 5), 10 + 26 * (k // 5)] for k in range(14)], np.float32)
    loaded = loaded_of(data)
    for image, points in zip(loaded.images(), loaded.keypoints.long(), strict=True):
        image.zero_()
        for k, (x, y) in enumerate(points.tolist()):
            image[:, max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3] = 18 * (k + 1)
    return loaded


def crops_of(augmentation, size=(96, 128)):
    system = Tiny(14, TinyConfig(input_size=size))
    system.mean, system.std = (0.0, 0.0, 0.0), (18.0, 18.0, 18.0)
    return Crops(system, skeletons.LSP, augmentation)


def numbers_at(batch, i):
    """What the image says at the joints of a person that are in the crop: joint + 1."""
    points, seen = batch.keypoints[i].round().long(), batch.visible[i]
    return {k: round(float(batch.images[i, 0, y, x])) for k, (x, y) in enumerate(points.tolist()) if seen[k]}


def test_upright(marked):
    batch, transforms = crops_of(Augmentation(**STILL))(marked)
    assert batch.images.shape == (2, 3, 96, 128) and batch.others is None
    for i in range(2):
        assert numbers_at(batch, i) == {k: k + 1 for k in range(14)}
    # The whole image of 120x80 in a crop of 128x96: the wider fits, 120 px in 128, and the middle stays the middle.
    middle = transforms[0] @ torch.tensor([63.5, 47.5, 1.0])
    torch.testing.assert_close(middle, torch.tensor([59.5, 39.5]))
    torch.testing.assert_close(transforms[:, 0, 0], torch.full((2,), 120 / 128))
    assert batch.occluded[0].tolist() == [True] + [False] * 13


@pytest.mark.parametrize("rotation", [0.1, 0.9])
@pytest.mark.parametrize("zoom", [0.2, 0.7])
def test_joints_stay_on_their_pixels(marked, rotation, zoom):
    augmentation = Augmentation(scale=0.4, rotation=60, shift=0.1, flip=0, half_body=0, colour=0)
    table = draws(2, u1=zoom, u2=rotation, u4=0.9, u5=0.3)
    batch, _ = crops_of(augmentation)(marked, table)
    for i in range(2):
        found = numbers_at(batch, i)
        assert len(found) > 4 and found == {k: k + 1 for k in found}


def test_flip_exchanges_left_and_right(marked):
    upright, _ = crops_of(Augmentation(**STILL))(marked)
    flipped, _ = crops_of(Augmentation(**(STILL | {"flip": 0.5})))(marked, draws(2, u0=torch.tensor([0.4, 0.6])))
    torch.testing.assert_close(flipped.images[0], upright.images[0].flip(-1), atol=1e-4, rtol=0)
    assert torch.equal(flipped.images[1], upright.images[1])
    # Where the right ankle was drawn, the mirrored image has a left ankle.
    assert numbers_at(flipped, 0) == {k: JOINTS[k] + 1 for k in range(14)}
    assert numbers_at(flipped, 1) == {k: k + 1 for k in range(14)}
    assert flipped.occluded.nonzero().tolist() == [[0, JOINTS[0]], [1, 0]]


def test_half_body(marked):
    augmentation = Augmentation(**(STILL | {"half_body": 0.5}))
    batch, _ = crops_of(augmentation)(marked, draws(2, u6=torch.tensor([0.1, 0.9]), u7=0.9))
    # The lower body, joints 0 to 5, fills its crop but for the padding of 1.5; the second person is not drawn.
    extent = batch.keypoints[:, :6].amax(1) - batch.keypoints[:, :6].amin(1)
    torch.testing.assert_close(extent[0, 0], torch.tensor(128 / 1.5))
    for i in range(2):
        assert numbers_at(batch, i) == {k: k + 1 for k in range(14)}
    marked.visible[:, 2:] = 0  # two labels are too few
    batch, transforms = crops_of(augmentation)(marked, draws(2, u6=0.1, u7=0.9))
    torch.testing.assert_close(transforms[:, 0, 0], torch.full((2,), 120 / 128))


def test_colour_is_a_gain_of_pixels(marked):
    system = Tiny(14, TinyConfig(input_size=(96, 128)))
    plain, _ = Crops(system, skeletons.LSP)(marked)
    bright, _ = Crops(system, skeletons.LSP, Augmentation(**(STILL | {"colour": 0.3})))(
        marked, draws(2, u8=1.0, u9=1.0, u10=0.5, u11=0.5)
    )
    mean, std = (torch.tensor(v)[:, None, None] for v in (system.mean, system.std))
    gain = torch.tensor([1.3 * 1.1, 1.3, 1.3])[:, None, None]
    torch.testing.assert_close(bright.images * std + mean, gain * (plain.images * std + mean), atol=1e-3, rtol=1e-4)


def test_out_of_the_crop_does_not_count(marked):
    marked.keypoints[0, 3] = torch.tensor([-30.0, 10.0])
    batch, _ = crops_of(None)(marked)
    assert not batch.visible[0, 3] and batch.visible.sum() == 27


def test_others_and_boxes(tmp_path):
    people = [coco_person(3, [20 + i, 10, 2] + [0] * 48, bbox=[10 + i, 5, 16, 12]) for i in range(3)]
    data = open_dataset(f"coco:{coco_file(tmp_path / 'coco.json', people)}")
    batch, transforms = Crops(Tiny(17, TinyConfig(input_size=(48, 64))), data.skeleton)(loaded_of(data))
    assert batch.others.shape == (3, 2, 17, 2) and batch.others[:, :, 1:].isnan().all()
    own, others = batch.keypoints[:, 0], batch.others[:, :, 0]
    # A box of 16x12 enlarged by 1.25 in 64 columns: 3.2 px of the crop for each of the image.
    torch.testing.assert_close(others[0] - own[0], torch.tensor([[3.2, 0.0], [6.4, 0.0]]), atol=1e-4, rtol=0)
    torch.testing.assert_close(own, torch.tensor([[31.5 + 3.2 * 2, 31.5 - 8 - 3.2]]).expand(3, 2), atol=1e-4, rtol=0)


def test_nobody(marked):
    nobody = loaded_of_none(marked)
    batch, transforms = crops_of(Augmentation())(nobody, torch.rand(0, DRAWS))
    assert batch.images.shape == (0, 3, 96, 128) and batch.keypoints.shape == (0, 14, 2)


def loaded_of_none(loaded):
    empty = {name: v[:0] for name, v in vars(loaded).items() if isinstance(v, torch.Tensor)}
    return type(loaded)(**(vars(loaded) | empty | {"sizes": []}))


# Loading


def test_a_bad_image_is_left_out_and_named(tmp_path):
    (lsp_folder(tmp_path, 6) / "images" / "im0003.jpg").write_bytes(b"no image")
    data = open_dataset(f"lsp:{tmp_path}")
    for memory in (1 << 30, 0):  # decoded at once, or when wanted
        (loaded,) = eval_loader(People(data, memory=memory), 8)
        assert loaded.index.tolist() == [0, 1, 3, 4, 5] and len(loaded.sizes) == 5
        assert len(loaded.bad) == 1 and "im0003.jpg: not a readable image" in loaded.bad[0]


def test_order_depends_on_seed_and_epoch_alone(tmp_path):
    people = People(open_dataset(f"lsp:{lsp_folder(tmp_path, 16)}"))

    def order(epoch, **options):
        loader = train_loader(people, options.pop("batch", 8), **options)
        loader.sampler.set_epoch(epoch)
        return [sorted(loaded.index.tolist()) for loaded in loader]

    assert order(0) == order(0) != order(1) and order(0) != order(0, seed=1)
    assert sorted(sum(order(3), [])) == list(range(16))
    # Two ranks with 4 people each see what one sees with 8, step by step.
    halves = [order(2, batch=4, rank=rank, world=2) for rank in range(2)]
    assert [sorted(a + b) for a, b in zip(*halves, strict=True)] == order(2)


def test_workers_decode_the_same(tmp_path):
    data = open_dataset(f"lsp:{lsp_folder(tmp_path, 6)}")
    here, there = (list(eval_loader(People(data, memory=0), 4, workers=workers)) for workers in (0, 2))
    for a, b in zip(here, there, strict=True):
        assert torch.equal(a.pixels, b.pixels) and torch.equal(a.index, b.index)


def test_images_in_memory_up_to_a_limit(tmp_path):
    people = People(open_dataset(f"lsp:{lsp_folder(tmp_path, 6)}"), memory=40 * 60 * 3 * 4)
    assert len(people.cache) == 4 and not people.complete
    assert people[5][1].shape == (40, 60, 3)
