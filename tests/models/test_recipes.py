"""The recipes of models/recipes/, and the options of train that stand over them."""

import argparse
import dataclasses
import json
import shlex
from pathlib import Path

import pytest

from pypose_ops.cli import train
from pypose_ops.errors import InputError
from pypose_ops.models import SYSTEMS, build, system_class
from pypose_ops.models.training.crops import Augmentation
from pypose_ops.models.training.levers import check_names
from pypose_ops.models.training.recipe import FOLDER, Recipe, read_recipe
from pypose_ops.skeletons import LSP

CASES = [(name, preset) for name in SYSTEMS if name != "tiny" for preset in ("compact", "paper")]
BACKBONES = ("heatmap_net", "cpm", "part_heatmap_regression", "deeppose", "dual_source", "cnn_mrf")
RUNS = sorted((Path(__file__).resolve().parents[2] / "docs" / "results").rglob("run.json"))


def parsed(*arguments, files=("--data", "lsp:here", "--out", "there")):
    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    return parser.parse_args([*arguments, *files])


@pytest.mark.parametrize(("system", "preset"), CASES)
def test_a_recipe_fits_its_system(system, preset):
    recipe, options = train.recipe_of(parsed(system, "--recipe", "--preset", preset))
    assert recipe != Recipe()  # it says something
    if preset == "compact":
        phases = build(system, 14, preset, **options).phases
        assert len(recipe.shares(phases)) == len(phases) and min(recipe.shares(phases)) > 0
    else:
        known = {field.name for field in dataclasses.fields(system_class(system).presets["paper"])}
        assert options.keys() <= known


@pytest.mark.parametrize("system", BACKBONES)
def test_a_recipe_from_imagenet_weights(system):
    """Its options, and the names in it, are those of the system; the cleanest data set comes last."""
    recipe, options = train.recipe_of(parsed(system, "--recipe", "--preset", "efficientnet_lite0"))
    built = build(system, 14, "efficientnet_lite0", **options)
    check_names("lr_factors", built, list(recipe.lr_factors))
    shares = recipe.shares(built.phases)
    assert len(shares) == len(built.phases) and 0 < recipe.last_epochs < min(shares) + 1 and recipe.ema


@pytest.mark.parametrize("path", RUNS, ids=lambda path: "-".join(path.parts[path.parts.index("results") + 1 : -1]))
def test_the_results_are_of_their_commands(path):
    """Of command.sh; without one, of the recipe alone."""
    run, command = json.loads(path.read_text()), path.with_name("command.sh")
    args = parsed(run["system"], "--recipe", "--preset", run["preset"])
    if command.exists():
        program, name, *arguments = shlex.split(command.read_text().replace("\\\n", " "))
        assert (program, name) == ("pypose-ops", "train")
        args = parsed(*arguments, files=())
        assert (args.system, args.preset, args.data) == (run["system"], run["preset"], run["data"])
        options = train.system_of(args, LSP, train.recipe_of(args)[1])[1]["options"]
        assert json.loads(json.dumps(options)) == run["options"]
    recipe = json.loads(json.dumps(dataclasses.asdict(train.recipe_of(args)[0])))
    if recipe["phase_epochs"]:
        recipe["epochs"] = run["recipe"]["epochs"]  # without a meaning there
    assert json.loads(json.dumps(dataclasses.asdict(Recipe()))) | run["recipe"] == recipe  # older runs lack options


def test_every_recipe_is_of_a_system():
    assert {path.stem for path in FOLDER.glob("*.toml")} == {system for system, _ in CASES}


def test_without_a_recipe_the_defaults_hold():
    assert train.recipe_of(parsed("cpm")) == (Recipe(), {})


def test_options_stand_over_the_recipe():
    said = read_recipe("deeppose", "compact")
    assert len(said["phase_epochs"]) == 3 and said["precision"] == "bf16-mixed"
    args = parsed("deeppose", "--recipe", "--precision", "32-true", "--seed", "3", "--augment-flip", "0")
    expected = Recipe(
        phase_epochs=tuple(said["phase_epochs"]), precision="32-true", seed=3, augmentation=Augmentation(flip=0.0)
    )
    assert train.recipe_of(args)[0] == expected
    # Epochs in all stand over the recipe's epochs of each phase, and epochs of each phase over both.
    recipe = train.recipe_of(parsed("deeppose", "--recipe", "--epochs", "6"))[0]
    assert recipe.shares(("stage1", "stage2", "stage3")) == [2, 2, 2]
    recipe = train.recipe_of(parsed("deeppose", "--recipe", "--epochs", "6", "--phase-epochs", "4,1,1"))[0]
    assert recipe.shares(("stage1", "stage2", "stage3")) == [4, 1, 1]


def test_arguments_of_the_system(monkeypatch, tmp_path):
    """A recipe's, and --set over them."""
    text = "[compact]\nlr = 0.5\n[compact.options]\nsigma = 3.0\nstacks = 1\n[compact.augmentation]\nflip = 0.25\n"
    (tmp_path / "stacked_hourglass.toml").write_text(text)
    monkeypatch.setattr("pypose_ops.models.training.recipe.FOLDER", tmp_path)
    args = parsed("stacked_hourglass", "--recipe", "--set", "stacks=3")
    recipe, options = train.recipe_of(args)
    assert recipe == dataclasses.replace(Recipe(), lr=0.5, augmentation=Augmentation(flip=0.25))
    assert train.system_of(args, LSP, options)[1]["options"] == {"sigma": 3.0, "stacks": 3}


@pytest.mark.parametrize(
    ("system", "preset", "message"), [("cpm", "vgg", "not for vgg"), ("posenet", "compact", "not for posenet")]
)
def test_no_such_recipe(system, preset, message):
    with pytest.raises(InputError, match=f"^recipe: there is one for|^recipe: {system}.toml has one.*{message}"):
        train.recipe_of(parsed(system, "--recipe", "--preset", preset))
