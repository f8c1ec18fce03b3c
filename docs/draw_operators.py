"""What each operator does to a real image, as the images that their pages begin with.

The image is scikit-image's astronaut (NASA, public domain), the heatmaps those of the package's sample.
"""

import functools
import shutil
import tempfile
from importlib import resources
from pathlib import Path

import matplotlib
import numpy as np
import torch

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
from PIL import Image  # noqa: E402
from skimage.data import astronaut  # noqa: E402

import pypose_ops  # noqa: E402
from pypose_ops import geometry, skeletons, viz  # noqa: E402
from pypose_ops.cli.main import main  # noqa: E402

COCO = skeletons.COCO
UPPER = list(range(11))  # the astronaut is seen from the waist up


@functools.cache
def sample():
    """Heatmaps (1, 17, 64, 64) of the astronaut, and the transform from their pixels to the image's."""
    with resources.as_file(resources.files("pypose_ops") / "data" / "astronaut_movenet.npz") as path:
        arrays = np.load(path)
        maps = torch.from_numpy(arrays["heat"]).float()[None]
        return maps, torch.from_numpy(arrays["hm2img"]).float()


@functools.cache
def pose():
    """The joints (1, 17, 2) in heatmap pixels and their scores."""
    maps, _ = sample()
    return pypose_ops.decode_heatmaps(maps)


def image_of(axes, image, title):
    axes.imshow(image)
    axes.set_title(title, fontsize=9)
    axes.axis("off")


def overlay(axes, maps, title, **options):
    """A map of heatmap size over the image."""
    _, transform = sample()
    image_of(axes, viz.heatmap_overlay(Image.fromarray(astronaut()), maps, transform, **options), title)


def panels(count, width=2.6, height=None):
    figure, axes = plt.subplots(1, count, figsize=(width * count, (height or width) + 0.3), layout="constrained")
    return figure, np.atleast_1d(axes)


def gaussian_heatmaps():
    """A joint becomes a blob: the training target of the left shoulder, and of all joints together."""
    figure, axes = panels(3)
    maps = pypose_ops.gaussian_heatmaps(pose().coords, 2.0, (64, 64))
    image_of(axes[0], astronaut(), "image")
    overlay(axes[1], maps[0, 5], "target of the left shoulder")
    overlay(axes[2], maps[0, UPPER].amax(0), "of all joints")
    return figure


def heatmap_mse_loss():
    """Where a prediction differs from targets that are never stored: the loss is the mean of this map's squares."""
    figure, axes = panels(3)
    maps, _ = sample()
    target = pypose_ops.gaussian_heatmaps(pose().coords, 2.0, (64, 64))
    loss = pypose_ops.heatmap_mse_loss(maps, pose().coords, 2.0)
    overlay(axes[0], maps[0, 5], "prediction")
    overlay(axes[1], target[0, 5], "target")
    overlay(axes[2], (maps - target)[0, 5].abs(), f"difference; loss {loss.item():.4f}")
    return figure


def limbs():
    return [edge for edge in COCO.edges if max(edge) < 11]


def part_affinity_fields():
    """Unit vectors along each limb tell which joints belong to one person; here the left upper arm's."""
    figure, axes = panels(3)
    fields = pypose_ops.part_affinity_fields(pose().coords, limbs(), 2.0, (64, 64))[0].unflatten(0, (-1, 2))
    arm = limbs().index((5, 7))
    image_of(axes[0], astronaut(), "image")
    overlay(axes[1], fields[arm].norm(dim=0), "length of the field of one limb")
    overlay(axes[2], fields.norm(dim=1).amax(0), "of all limbs")
    return figure


def limb_masks():
    """Pixels within a radius of a limb."""
    figure, axes = panels(2)
    masks = pypose_ops.limb_masks(pose().coords, limbs(), 2.0, (64, 64))[0]
    image_of(axes[0], astronaut(), "image")
    overlay(axes[1], masks.amax(0), "masks of all limbs")
    return figure


def offset_heatmaps():
    """A disc says that a joint is near, two more maps how far it is."""
    figure, axes = panels(3)
    disc, x, y = pypose_ops.offset_heatmaps(pose().coords, 6.0, (64, 64))[0, 15:18]
    overlay(axes[0], disc, "disc of the left shoulder")
    for panel, values, title in ((axes[1], x, "offset along x"), (axes[2], y, "offset along y")):
        panel.imshow(values.clamp(-3, 3), cmap="coolwarm")
        panel.set_title(title, fontsize=9)
        panel.axis("off")
    return figure


def simcc_labels():
    """A joint as two distributions, one over the columns of the image and one over its rows."""
    figure, axes = panels(2, 3.2)
    to_image = sample()[1]
    joints = geometry.transform_points(pose().coords, to_image[None])
    x, y = pypose_ops.simcc_labels(joints, 12.0, (512, 512))
    image_of(axes[0], astronaut(), "image")
    axes[0].plot(*joints[0, 5], "o", color="#ff8c1a", markersize=5)
    axes[1].plot(np.arange(1024) / 2, x[0, 5], label="over x")
    axes[1].plot(np.arange(1024) / 2, y[0, 5], label="over y")
    axes[1].set_title("label of the left shoulder", fontsize=9)
    axes[1].set_xlabel("pixels")
    axes[1].legend(fontsize=8)
    return figure


def drawn_pose(axes, coords, scores, title):
    points = geometry.transform_points(coords, sample()[1][None])
    image_of(axes, viz.draw_pose(Image.fromarray(astronaut()), points[0], scores[0]), title)


def decode_heatmaps():
    """The highest pixel of each map, refined below a pixel, in coordinates of the image, in one call."""
    figure, axes = panels(3)
    maps, transform = sample()
    peaks = pypose_ops.decode_heatmaps(maps, transform=transform[None])
    overlay(axes[0], maps[0, 5], "heatmap of the left shoulder")
    overlay(axes[1], maps[0, UPPER].amax(0), "of all joints")
    image_of(axes[2], viz.draw_pose(Image.fromarray(astronaut()), peaks.coords[0], peaks.scores[0]), "decoded")
    return figure


def decode_roi_heatmaps():
    """The highest pixel that every map would have in the size of its box, found without resizing it."""
    figure, axes = panels(2)
    maps, transform = sample()
    corners = geometry.transform_points(torch.tensor([[[-0.5, -0.5], [63.5, 63.5]]]), transform[None])
    coarse = torch.nn.functional.avg_pool2d(maps, 4)
    coords, scores = pypose_ops.decode_roi_heatmaps(coarse, corners.flatten(1))
    larger = torch.nn.functional.interpolate(coarse[:, 5:6], scale_factor=4)  # overlay() draws 64x64
    overlay(axes[0], larger[0, 0], "16x16 pixels of the left shoulder")
    image_of(axes[1], viz.draw_pose(Image.fromarray(astronaut()), coords[0], scores[0]), "decoded")
    return figure


def decode_simcc():
    """The best bins of two vectors are a joint."""
    figure, axes = panels(2, 3.2)
    joints = geometry.transform_points(pose().coords, sample()[1][None])
    vectors = pypose_ops.simcc_labels(joints, 12.0, (512, 512))
    coords, _ = pypose_ops.decode_simcc(*vectors)
    for vector, name in zip(vectors, "xy", strict=True):
        axes[0].plot(np.arange(1024) / 2, vector[0, 5], label=f"over {name}")
    axes[0].set_title("vectors of the left shoulder", fontsize=9)
    axes[0].legend(fontsize=8)
    image_of(axes[1], viz.draw_pose(Image.fromarray(astronaut()), coords[0], pose().scores[0]), "decoded")
    return figure


def find_peaks():
    """All local maxima above a threshold, for maps of several people: here in the highest of all joints' maps."""
    figure, axes = panels(2)
    maps, transform = sample()
    together = maps[:, UPPER].amax(1, keepdim=True)
    peaks = pypose_ops.find_peaks(together, threshold=0.15)
    points = geometry.transform_points(peaks.coords[0, 0, : int(peaks.counts)][None], transform[None])[0]
    overlay(axes[0], together[0, 0], "maps")
    image_of(axes[1], astronaut(), f"{len(points)} peaks")
    axes[1].plot(points[:, 0], points[:, 1], "o", color="#ff8c1a", markersize=4)
    return figure


def soft_argmax():
    """The mean of a map's softmax moves smoothly with the map, so that a loss on coordinates trains it."""
    figure, axes = panels(3)
    maps, transform = sample()
    for panel, temperature in zip(axes, (0.1, 0.05, 0.02), strict=True):
        coords = pypose_ops.soft_argmax(maps, temperature=temperature)
        drawn_pose(panel, coords, pose().scores, f"temperature {temperature}")
    return figure


def crop_patches():
    """Rotated boxes cut out of an image, normalised and antialiased, in one call; here of three joints."""
    figure, axes = panels(4, 2.2)
    image = torch.from_numpy(astronaut()).permute(2, 0, 1)
    centers = geometry.transform_points(pose().coords, sample()[1][None])[0, [0, 5, 6]]
    scale = torch.full((3, 2), 140.0)
    transforms = geometry.box_to_transform(centers, scale, torch.tensor([0.0, 30.0, -30.0]), (96, 96))
    patches = pypose_ops.crop_patches(image, transforms, (96, 96), antialias=True)
    image_of(axes[0], astronaut(), "image")
    corners = torch.tensor([[-0.5, -0.5], [95.5, -0.5], [95.5, 95.5], [-0.5, 95.5], [-0.5, -0.5]])
    for transform in transforms:
        axes[0].plot(*geometry.transform_points(corners[None], transform[None])[0].T, color="#ff8c1a")
    for panel, patch, name in zip(axes[1:], patches, ("nose", "left shoulder", "right shoulder"), strict=True):
        image_of(panel, patch.permute(1, 2, 0).clamp(0, 255).byte(), name)
    return figure


def box_vote():
    """Boxes vote for the pixels that they cover, each with its scores."""
    figure, axes = panels(2)
    joints = pose().coords[0, [5, 6, 7, 8]]
    boxes = torch.cat((joints - 6, joints + 6), 1)[None]
    votes = pypose_ops.box_vote(boxes, torch.ones(1, 4, 1), (64, 64))
    image_of(axes[0], astronaut(), "image")
    overlay(axes[1], votes[0, 0], "votes of four boxes")
    return figure


def mrf_message_passing():
    """Each joint hears from the others where it should be: a false second peak loses."""
    figure, axes = panels(3)
    maps, _ = sample()
    unary = maps[:, [5, 6]].clone()
    false = pypose_ops.gaussian_heatmaps(torch.tensor([[[10.0, 50.0]]]), 2.0, (64, 64))
    unary[:, :1] = torch.maximum(unary[:, :1], 1.3 * unary[:, :1].amax() * false)
    delta = (pose().coords[0, 5] - pose().coords[0, 6]).tolist()
    prior = torch.cat(
        [
            pypose_ops.gaussian_heatmaps(torch.tensor([[[63 + s * delta[0], 63 + s * delta[1]]]]), 4.0, (127, 127))[0]
            for s in (1.0, -1.0)
        ]
    )
    energy = pypose_ops.mrf_message_passing(unary, prior, torch.full((2,), 1e-3), [(1, 0), (0, 1)])
    overlay(axes[0], unary[0, 0], "left shoulder, with a false peak")
    overlay(axes[1], unary[0, 1], "right shoulder")
    overlay(axes[2], energy[0, 0].sub(energy[0, 0].amax()).exp(), "left shoulder, after the message")
    return figure


def tree():
    """A tree over shoulders, elbows and wrists, springs at the astronaut's own displacements."""
    edges = [(0, 1), (0, 2), (2, 4), (1, 3), (3, 5)]  # of joints 5 to 10
    coords = pose().coords[0, 5:11]
    springs = torch.stack([torch.cat((coords[b] - coords[a], torch.tensor([0.05, 0.05]))) for a, b in edges])
    return sample()[0][:, 5:11].clamp(min=1e-4).log(), edges, springs


def max_product():
    """The best pose of a tree of joints with springs: a hidden wrist goes where the arm sends it."""
    figure, axes = panels(2)
    unary, edges, springs = tree()
    hidden = unary.clone()
    hidden[:, 5] = hidden[:, 5].mean()
    scores = torch.ones(1, 17)
    for panel, values, title in ((axes[0], unary, "all maps"), (axes[1], hidden, "one wrist's map is empty")):
        peaks, _ = pypose_ops.max_product(values, edges, springs)
        coords = torch.full((1, 17, 2), float("nan"))
        coords[:, 5:11] = peaks.coords
        drawn_pose(panel, coords, scores, title)
    return figure


def sum_product():
    """Every joint's marginal probability on a tree: the hidden wrist's is spread where the arm allows it."""
    figure, axes = panels(2)
    unary, edges, springs = tree()
    hidden = unary.clone()
    hidden[:, 5] = hidden[:, 5].mean()
    for panel, values, title in ((axes[0], unary, "marginal of a wrist"), (axes[1], hidden, "its map is empty")):
        log_marginals, _ = pypose_ops.sum_product(values, edges, springs)
        overlay(panel, log_marginals[0, 5].exp(), title)
    return figure


SHRUNK, PLACES = 0.7, ((4.0, 4.0), (46.0, 10.0))  # of two people on one image, in heatmap pixels


@functools.cache
def two_people():
    """Peaks, fields and limbs of the astronaut and a copy beside her, on maps of 64 x 96."""
    one = pose().coords[0, UPPER] * SHRUNK
    people = torch.stack([one + torch.tensor(place) for place in PLACES])[None]
    maps = pypose_ops.gaussian_heatmaps(people, 1.5, (64, 96))
    fields = pypose_ops.part_affinity_fields(people, limbs(), 1.5, (64, 96))
    return maps, fields, pypose_ops.find_peaks(maps, threshold=0.3)


@functools.cache
def photograph_of_two():
    """The image that those maps are of, eight of its pixels to one of theirs."""
    pixels = torch.cat((torch.from_numpy(astronaut()), torch.full((512, 512, 1), 255, dtype=torch.uint8)), -1)
    to_photograph = sample()[1]
    image = torch.full((3, 512, 768), 128.0)
    for place in PLACES:
        to_canvas = torch.tensor([[8 * SHRUNK, 0.0, 8 * place[0] + 3.5], [0.0, 8 * SHRUNK, 8 * place[1] + 3.5]])
        transform = geometry.compose_transforms(to_photograph, geometry.invert_transform(to_canvas))
        layer = pypose_ops.crop_patches(pixels.permute(2, 0, 1), transform[None], (512, 768), antialias=True)[0]
        image = image + (layer[:3] - image) * layer[3:] / 255
    return Image.fromarray(image.permute(1, 2, 0).clamp(0, 255).byte().numpy())


def over_two(axes, maps, title, **options):
    image_of(axes, viz.heatmap_overlay(photograph_of_two(), maps, **options), title)


def score_limbs():
    """Every pair of candidates of a limb, scored along its field: pairs of one person win."""
    figure, axes = panels(3, 3.2, 2.1)
    maps, fields, peaks = two_people()
    scores = pypose_ops.score_limbs(fields, peaks, limbs())
    arm = limbs().index((5, 7))
    image_of(axes[0], photograph_of_two(), "two people")
    over_two(axes[1], fields[0].unflatten(0, (-1, 2))[arm].norm(dim=0), "field of the left upper arm")
    image_of(axes[2], photograph_of_two(), "score of each shoulder with each elbow")
    shoulders, elbows = (8 * peaks.coords[0, joint, :2] + 3.5 for joint in (5, 7))
    for i in range(2):
        for j in range(2):
            value, ends = scores[0, arm, i, j].item(), torch.stack((shoulders[i], elbows[j]))
            color, style = ("#7bdc5a", "-") if value > 0.5 else ("#ff5a4d", ":")
            axes[2].plot(*ends.T, color=color, linestyle=style, linewidth=2)
            middle, box = (
                ends.mean(0) + torch.tensor([0.0, 60.0 * (i - j)]),
                {"facecolor": "black", "pad": 1, "alpha": 0.7},
            )
            axes[2].text(*middle, f"{value:.1f}", color=color, fontsize=8, ha="center", va="center", bbox=box)
    return figure


def draw_people(axes, people, title):
    """Each person in a colour."""
    image_of(axes, photograph_of_two(), title)
    count = int(people.counts[0])
    for n in range(count):
        person, scores = 8 * people.coords[0, n] + 3.5, people.joint_scores[0, n]
        for a, b in limbs():
            if scores[a] > 0 and scores[b] > 0:
                axes.plot(person[[a, b], 0], person[[a, b], 1], linewidth=2, color=("#ff8c1a", "#1fa2ff")[n % 2])


def group_people():
    """Peaks and limb scores become people."""
    figure, axes = panels(3, 3.2, 2.1)
    maps, fields, peaks = two_people()
    people = pypose_ops.group_people(peaks, pypose_ops.score_limbs(fields, peaks, limbs()), limbs())
    over_two(axes[0], maps[0].amax(0), "heatmaps")
    over_two(axes[1], fields[0].unflatten(0, (-1, 2)).norm(dim=1).amax(0), "limb fields")
    draw_people(axes[2], people, f"{int(people.counts[0])} people")
    return figure


def group_by_tags():
    """Peaks with equal tags are one person: associative embedding."""
    figure, axes = panels(3, 3.2, 2.1)
    maps, _, peaks = two_people()
    tags = (torch.arange(96) > 46).float().expand(1, len(UPPER), 64, 96).contiguous()
    people = pypose_ops.group_by_tags(peaks, tags)
    over_two(axes[0], maps[0].amax(0), "heatmaps")
    over_two(axes[1], 0.15 + tags[0, 0], "tags", vmax=2.0)
    draw_people(axes[2], people, f"{int(people.counts[0])} people")
    return figure


def oks():
    """How alike two poses are, from 1 for the same to 0."""
    figure, axes = panels(3)
    coords = geometry.transform_points(pose().coords, sample()[1][None])
    for panel, shift in zip(axes, (0.0, 12.0, 40.0), strict=True):
        moved = coords + shift
        value = pypose_ops.oks(moved, coords, torch.tensor([300.0 * 400.0])).item()
        drawn = viz.draw_pose(Image.fromarray(astronaut()), coords[0], pose().scores[0])
        image_of(panel, viz.draw_pose(drawn, moved[0], pose().scores[0]), f"{shift:.0f} px apart: {value:.2f}")
    return figure


def oks_nms():
    """Of people who were found twice the better one stays."""
    figure, axes = panels(2)
    coords = geometry.transform_points(pose().coords, sample()[1][None])
    found = torch.cat((coords, coords + 5, coords - 4))
    kept = pypose_ops.oks_nms(found, torch.tensor([0.9, 0.7, 0.8]), torch.full((3,), 1.2e5))
    for panel, mask, title in ((axes[0], torch.ones(3, dtype=torch.bool), "found"), (axes[1], kept.mask, "kept")):
        image = Image.fromarray(astronaut())
        for person in found[mask]:
            image = viz.draw_pose(image, person, pose().scores[0])
        image_of(panel, image, f"{int(mask.sum())} {title}")
    return figure


OPERATORS = {name: globals()[name] for name in sorted(pypose_ops.reference.__all__) if name in globals()}


def caption(name):
    return OPERATORS[name].__doc__


def draw(name, path):
    figure = OPERATORS[name]()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def draw_predicted(path):
    """What ``pypose-ops predict`` makes of an image of two people."""
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "astronauts.png"
        photograph_of_two().save(image)
        assert main(["predict", str(image), "--out", f"{folder}/poses"]) == 0
        shutil.copy(f"{folder}/poses/astronauts.png", path)
