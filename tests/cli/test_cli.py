"""The command line on real and on bad input."""

import ast
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import pypose_ops
from pypose_ops.cli import demo
from pypose_ops.cli.decode import find_skeleton
from pypose_ops.cli.main import COMMANDS, main
from pypose_ops.errors import InputError
from pypose_ops.skeletons import AIC, COCO, LSP, MPII

SAMPLE = Path(pypose_ops.__file__).parent / "data" / "astronaut_movenet.npz"


def command_line(*arguments, cwd):
    """Runs the installed program. Not from the source folder: its pypose_ops has no _C."""
    command = [sys.executable, "-m", "pypose_ops.cli.main", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


@pytest.fixture
def astronaut(tmp_path):
    path = tmp_path / "astronaut.png"
    Image.fromarray(pytest.importorskip("skimage.data").astronaut()).save(path)
    return path


def save(path, **arrays):
    np.savez(path, **arrays)
    return path


def one_peak(path, people=1, joints=17, **arrays):
    """Maps whose joint k has its peak at pixel (k, 2)."""
    heatmaps = np.zeros((people, joints, 8, 32), np.float32)
    for k in range(joints):
        heatmaps[:, k, 2, k] = 0.9
    return save(path, heatmaps=heatmaps, **arrays)


def test_info(tmp_path):
    done = command_line("info", cwd=tmp_path)
    assert done.returncode == 0 and not done.stderr
    assert pypose_ops.__version__ in done.stdout and "cuda toolkit" in done.stdout


@pytest.mark.parametrize("words", [["--help"], [], ["nonsense"]])
def test_help_imports_nothing_but_the_standard_library(words):
    """It must appear at once: torch takes seconds."""
    code = (
        "import sys; before = set(sys.modules); from pypose_ops_program import main\n"
        f"try: main({words})\n"
        "except SystemExit: print(sorted({n.partition('.')[0] for n in set(sys.modules) - before}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = set(ast.literal_eval(done.stdout.splitlines()[-1]))
    assert imported - sys.stdlib_module_names == {"pypose_ops_program"}


def test_decode_the_sample(tmp_path, astronaut):
    out, result = tmp_path / "new" / "pose.png", tmp_path / "pose.json"
    done = command_line(
        "decode", SAMPLE, "--key", "heat", "--image", astronaut, "--out", out, "--json", result, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "left shoulder" in done.stdout and "image px" in done.stdout
    before, after = (np.asarray(Image.open(path).convert("RGB")) for path in (astronaut, out))
    assert before.shape == after.shape and 0.01 < (before != after).any(-1).mean() < 0.2
    assert Image.open(tmp_path / "new" / "pose-heatmaps.png").width > 1000
    pose = json.loads(result.read_text())
    assert pose["joints"] == list(COCO.joints) and pose["refine"] == "dark"
    assert "NASA" in pose["meta"]["picture"]
    keypoints = np.array(pose["people"][0]["keypoints"])
    own = np.load(SAMPLE)
    sure = own["own_score"] > 0.3
    assert np.linalg.norm(keypoints - own["own_xy"], axis=1)[sure].mean() < 8  # one heatmap pixel


@pytest.mark.parametrize("refine", ["none", "quarter", "dark"])
def test_decode_agrees_with_the_operator(refine, tmp_path, capsys):
    result = tmp_path / "pose.json"
    assert main(["decode", str(SAMPLE), "--key", "heat", "--refine", refine, "--json", str(result)]) == 0
    sample = np.load(SAMPLE)
    expected = pypose_ops.decode_heatmaps(
        torch.from_numpy(sample["heat"])[None],
        refine=None if refine == "none" else refine,
        transform=torch.from_numpy(sample["hm2img"])[None],
    )
    pose = json.loads(result.read_text())["people"][0]
    np.testing.assert_allclose(pose["keypoints"], expected.coords[0])
    np.testing.assert_allclose(pose["scores"], expected.scores[0])


def test_without_hm2img_maps_cover_the_image(tmp_path, capsys):
    maps, result = one_peak(tmp_path / "maps.npz"), tmp_path / "pose.json"
    decode = ["decode", str(maps), "--refine", "none", "--json", str(result)]
    assert main(decode) == 0
    assert "heatmap px" in capsys.readouterr().out
    assert json.loads(result.read_text())["people"][0]["keypoints"][3] == [3, 2]
    image = tmp_path / "image.png"
    Image.new("RGB", (320, 80)).save(image)
    assert main([*decode, "--image", str(image), "--out", str(tmp_path / "out.png")]) == 0
    assert json.loads(result.read_text())["people"][0]["keypoints"][3] == [34.5, 24.5]


def test_several_people_get_a_heatmap_image_each(tmp_path, capsys):
    hm2img = np.array([[[2, 0, 5], [0, 2, 5]], [[2, 0, 5], [0, 2, 45]]], np.float64)
    maps, image = one_peak(tmp_path / "maps.npz", people=2, hm2img=hm2img), tmp_path / "image.png"
    Image.new("RGB", (100, 80)).save(image)
    assert main(["decode", str(maps), "--image", str(image), "--out", str(tmp_path / "out.png")]) == 0
    assert "person 1" in capsys.readouterr().out
    assert {p.name for p in tmp_path.glob("out*")} == {"out.png", "out-heatmaps-0.png", "out-heatmaps-1.png"}
    drawn = np.asarray(Image.open(tmp_path / "out.png")).any(-1)
    assert drawn[:40].any() and drawn[40:].any()


def test_maps_of_any_joints_are_decoded(tmp_path, capsys):
    image = tmp_path / "image.png"
    Image.new("RGB", (320, 80)).save(image)
    maps = one_peak(tmp_path / "maps.npz", joints=30)
    assert main(["decode", str(maps), "--image", str(image), "--out", str(tmp_path / "out.png")]) == 0
    assert "joint 29" in capsys.readouterr().out


def test_find_skeleton(tmp_path):
    for skeleton in (COCO, MPII):
        assert find_skeleton(None, len(skeleton)) == (skeleton, list(skeleton.joints))
    assert find_skeleton(None, 14, "aic")[0] is AIC
    (tmp_path / "own.toml").write_text('joints = ["a", "b"]')
    assert find_skeleton(None, 2, str(tmp_path / "own.toml"))[1] == ["a", "b"]
    for skeleton in (COCO, MPII, LSP):
        shuffled = list(reversed(skeleton.joints))
        assert find_skeleton(shuffled, len(skeleton)) == (skeleton, shuffled)
    with pytest.raises(InputError, match="lsp or aic"):
        find_skeleton(None, 14)


def bad_calls(tmp_path):
    """Calls that the user got wrong, and a part of the line that says so."""
    good = one_peak(tmp_path / "good.npz")
    text, cut, empty = tmp_path / "text.npz", tmp_path / "cut.npz", tmp_path / "empty.npz"
    text.write_text("not a zip file at all")
    cut.write_bytes(SAMPLE.read_bytes()[:20000])
    empty.touch()
    flipped = bytearray(good.read_bytes())
    flipped[300:400] = bytes(range(100))
    (tmp_path / "flipped.npz").write_bytes(flipped)
    with zipfile.ZipFile(tmp_path / "other.npz", "w") as archive:
        archive.writestr("heatmaps", "some text")
    np.save(tmp_path / "single.npy", np.zeros((17, 8, 8), np.float32))
    heat = np.zeros((17, 8, 8), np.float32)
    image = ["--image", text, "--out", tmp_path / "out.png"]
    return {
        "missing file": ([tmp_path / "missing.npz"], "missing.npz: no such file"),
        "folder": ([tmp_path], "Is a directory"),
        "text": ([text], "text.npz: not an npz file"),
        "truncated": ([cut, "--key", "heat"], "cut.npz: not an npz file, or damaged"),
        "empty file": ([empty], "empty.npz: not an npz file"),
        "damaged": ([tmp_path / "flipped.npz"], "flipped.npz: not an npz file, or damaged"),
        "zip of something else": ([tmp_path / "other.npz"], "heatmaps must be a float16"),
        "npy": ([tmp_path / "single.npy"], "single.npy: an unnamed array"),
        "pickles": ([save(tmp_path / "p.npz", heatmaps=np.array([{}], object))], "p.npz: not an npz file"),
        "wrong key": ([good, "--key", "heat"], "no array 'heat', it has heatmaps"),
        "rank": ([save(tmp_path / "r.npz", heatmaps=heat[0])], r"(B, K, H, W) and not empty, got shape (8, 8)"),
        "no maps": ([save(tmp_path / "n.npz", heatmaps=heat[:0])], "not empty, got shape (0, 8, 8)"),
        "integers": ([save(tmp_path / "i.npz", heatmaps=heat.astype(int))], "float64 array, got int64"),
        "hm2img shape": ([one_peak(tmp_path / "h.npz", hm2img=np.eye(3))], "hm2img must be (2, 3) or (1, 2, 3)"),
        "hm2img singular": ([one_peak(tmp_path / "s.npz", hm2img=np.zeros((2, 3)))], "finite and invertible"),
        "joint names": ([one_peak(tmp_path / "j.npz", joint_names=["nose"])], "joint_names must be 17 strings"),
        "meta": ([one_peak(tmp_path / "m.npz", meta="{")], "meta is not json"),
        "skeleton": ([good, "--skeleton", "mpii"], "--skeleton mpii has 16 joints, the file has 17 maps"),
        "ambiguous": ([one_peak(tmp_path / "a.npz", joints=14)], "choose with --skeleton"),
        "not an image": ([good, *image], "text.npz: not a readable image"),
        "missing image": ([good, "--image", "none.png", "--out", "out.png"], "none.png: no such file"),
        "no out": ([good, "--image", "none.png"], "--image and --out go together"),
        "json folder": ([good, "--json", tmp_path / "no" / "out.json"], "out.json: cannot be written"),
    }


def test_bad_input_is_one_line_and_exit_code_2(tmp_path, capsys):
    for name, (arguments, message) in bad_calls(tmp_path).items():
        code = main(["decode", *map(str, arguments)])
        error = capsys.readouterr().err
        assert code == 2, name
        assert error.startswith("pypose-ops: error: ") and error.count("\n") == 1, f"{name}: {error}"
        assert message in error, f"{name}: {error}"


def test_image_that_cannot_be_written(tmp_path, astronaut, capsys):
    call = ["decode", str(SAMPLE), "--key", "heat", "--image", str(astronaut), "--out"]
    for out in ("out.unknown", "astronaut.png/out.png"):
        assert main([*call, str(tmp_path / out)]) == 2
        assert "cannot be written" in capsys.readouterr().err


def test_bad_input_of_the_program(tmp_path):
    done = command_line("decode", "missing.npz", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "pypose-ops: error: missing.npz: no such file\n"


@pytest.mark.parametrize(
    "arguments", [[], ["--no-such"], ["fly"], ["decode"], ["decode", "x", "--refine", "best"], ["info", "more"]]
)
def test_wrong_options(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert re.fullmatch(r"pypose-ops: error: .*; see pypose-ops[ \w]* --help\n", capsys.readouterr().err)


def test_wrong_options_are_named(capsys):
    for arguments, named in (
        (["--foo"], "--foo; see pypose-ops --help"),
        (["info", "x"], "x; see pypose-ops info --help"),
    ):
        with pytest.raises(SystemExit):
            main(arguments)
        assert capsys.readouterr().err == f"pypose-ops: error: unrecognized arguments: {named}\n"


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"pypose-ops {pypose_ops.__version__}\n"


def test_every_command_has_help(capsys):
    for name in COMMANDS:
        with pytest.raises(SystemExit) as stop:
            main([name, "--help"])
        assert stop.value.code == 0
    assert "--data" in capsys.readouterr().out


def test_demo(tmp_path, capsys):
    pytest.importorskip("skimage")
    assert main(["demo", "--out", str(tmp_path / "demo")]) == 0
    out = capsys.readouterr().out
    assert "gaussian_heatmaps" in out and "x faster" in out
    assert Image.open(tmp_path / "demo" / "astronaut.png").size == (512, 512)
    assert (tmp_path / "demo" / "astronaut-heatmaps.png").is_file()
    assert Image.open(tmp_path / "demo" / "astronaut-from-photograph.png").size == (512, 512)


def test_people_are_found(shared_data):
    """Both nets find most of the visible joints of COCO and MPII, with every decoder."""
    found = {}
    for name in demo.NETS.values():
        path = shared_data / "heatmaps" / name
        file, arrays, coords = demo.decode_all(path)
        found[name] = demo.near_truth(path, arrays, coords)
        for dataset, floor in (("coco", 0.85), ("mpii", 0.94)):
            people, joints, shares = found[name][dataset]
            assert dataset == "coco" or min(shares[refine] for refine in ("none", "quarter", "dark")) >= 0.96
            assert list(shares) == list(demo.DECODERS) and min(shares.values()) >= floor, (name, dataset, shares)
    people, joints, shares = found["movenet_thunder_topdown.npz"]["coco"]
    assert (people, joints) == (12, 164) and shares["none"] == pytest.approx(145 / 164)


def test_subpixel_steps_come_nearer_to_the_nets_own_decode(shared_data):
    means = demo.near_own(*demo.decode_all(shared_data / "heatmaps" / "movenet_thunder_topdown.npz"))
    for choice in ("own score >= 0.3 (355)", "own score >= 0.3, same peak (319)"):
        assert means[choice]["dark"] < means[choice]["quarter"] < means[choice]["none"]


def test_subpixel_steps_come_nearer_to_the_labels(shared_data):
    for name in demo.NETS.values():
        path = shared_data / "heatmaps" / name
        file, arrays, coords = demo.decode_all(path)
        joints, means = demo.error(path, file, arrays, coords)
        assert joints > 200
        assert means["dark, sigma 1.5"] < means["quarter"] < means["none"]


@pytest.mark.parametrize("net", demo.CROWDS)
def test_find_peaks_covers_what_strict_maxima_do(shared_data, net):
    name, key, activation = demo.CROWDS[net]
    labelled, covered = demo.crowd(shared_data / "heatmaps" / name, key, activation)
    assert labelled > 100
    assert covered["find_peaks, none"] >= covered["strict 3x3 maxima"] > 0.5 * labelled


def test_demo_without_its_data(tmp_path, capsys):
    pytest.importorskip("skimage")
    for folder, message in (("none", "none: no such folder"), (".", "movenet_thunder_topdown.npz: no such file")):
        assert main(["demo", "--out", str(tmp_path), "--data", str(tmp_path / folder)]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("values", [[[1e30, 0, 0], [0, 1e30, 0]], [[1e300, 0, 0], [0, 1, 0]], [[0, 0, 1], [0, 0, 1]]])
def test_affines_that_are_none(tmp_path, capsys, values):
    maps = np.zeros((3, 8, 6), np.float32)
    np.savez(tmp_path / "m.npz", heatmaps=maps, hm2img=np.array(values))
    singular = values[0][0] < 1e30
    assert main(["decode", str(tmp_path / "m.npz")]) == (2 if singular or values[0][0] > 1e38 else 0)
    np.savez(tmp_path / "m.npz", heatmaps=maps, hm2img=np.array([[4, 0, 1], [0, 4, 1]], np.float16))
    assert main(["decode", str(tmp_path / "m.npz")]) == 0
