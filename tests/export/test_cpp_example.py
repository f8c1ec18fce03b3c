"""The C++ example: it builds, finds what Python finds, and refuses what the package would misread."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from test_programs import BOXES, INFO, Net, image, net  # noqa: F401  fixtures

from pypose_ops.models.deployment import export_poses
from pypose_ops.models.inference import find_joints
from pypose_ops.skeletons import LSP

EXAMPLE = Path(__file__).parents[2] / "examples" / "cpp"


def tool(name):
    return shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)


@pytest.fixture(scope="module")
def pose(tmp_path_factory):
    """Builds the program as its CMakeLists.txt says; returns a function that runs it."""
    if tool("cmake") is None or tool("c++") is None:
        pytest.skip("no CMake or C++ compiler")
    folder = tmp_path_factory.mktemp("cpp")
    configure = [tool("cmake"), "-S", EXAMPLE, "-B", folder, f"-DPython_EXECUTABLE={sys.executable}"]
    # Torch's own package file looks for what this program does not use, and says so.
    for command in ([*configure, "-Wno-dev"], [tool("cmake"), "--build", folder]):
        done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert done.returncode == 0, done.stdout

    def run(*arguments):
        command = [folder / "pose", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True)

    return run


@pytest.fixture(scope="module")
def package(net, tmp_path_factory):  # noqa: F811
    return export_poses(net, INFO, tmp_path_factory.mktemp("net") / "net.pt2", format="aoti", flip=True)


@pytest.fixture(scope="module")
def raw(image, tmp_path_factory):  # noqa: F811
    path = tmp_path_factory.mktemp("image") / "image.raw"
    image.numpy().tofile(path)
    return path, *image.shape[:2]


def numbers(boxes):
    return boxes.flatten().tolist()


def test_joints_are_pythons(pose, package, raw, net, image):  # noqa: F811
    done = pose(package, *raw, *numbers(BOXES))
    assert done.returncode == 0, done.stderr
    found = np.array([list(map(float, line.split())) for line in done.stdout.splitlines() if line])
    joints, scores = find_joints(net, LSP, image.numpy(), BOXES, flip=True)
    np.testing.assert_allclose(found[:, :2], joints.flatten(0, 1), rtol=0, atol=1e-3)
    np.testing.assert_allclose(found[:, 2], scores.flatten(), rtol=0, atol=1e-4)


def test_bad_input_is_one_line(pose, package, raw, tmp_path):
    path, height, width = raw
    box = [0, 0, 9, 9]
    (tmp_path / "wrong.pt2").write_bytes(b"nothing of the kind")
    for arguments, message in (
        ((package, path, height, width, 1, 2, 3), "usage: pose PACKAGE.pt2 IMAGE"),
        ((package, path, height, width + 1, *box), f"{path}: expected {height} x {width + 1} x 3 bytes"),
        ((package, path, height - 1, width, *box), f"{path}: expected {height - 1} x {width} x 3 bytes"),
        ((package, path, 0, width, *box), "HEIGHT and WIDTH must be positive"),
        ((package, tmp_path / "none.raw", height, width, *box), "none.raw: cannot be read"),
        ((package, *raw, *box * 1025), "boxes must be 1 to 1024 boxes, got 1025"),
        ((tmp_path / "none.pt2", *raw, *box), "none.pt2: cannot be loaded: "),
        ((tmp_path / "wrong.pt2", *raw, *box), "wrong.pt2: cannot be loaded: "),
    ):
        done = pose(*arguments)
        assert done.returncode != 0 and done.stdout == ""
        assert message in done.stderr, done.stderr


def test_a_fixed_number_of_boxes_and_packages_of_others(pose, raw, net, tmp_path):  # noqa: F811
    fixed = export_poses(net, INFO, tmp_path / "two.pt2", format="aoti", boxes=2)
    assert pose(fixed, *raw, *numbers(BOXES[:2])).returncode == 0
    assert "boxes must be 2 to 2 boxes, got 3" in pose(fixed, *raw, *numbers(BOXES)).stderr
    other = torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(1, 2),))
    path = torch._inductor.aoti_compile_and_package(other, package_path=str(tmp_path / "other.pt2"))
    assert "expected a package of pypose-ops export" in pose(path, *raw, 0, 0, 9, 9).stderr
