"""Every codec in the configs of MMPose's wheel: served, or left out, as docs/integrations.md says."""

import ast
import collections
import re
from pathlib import Path

import numpy as np
import pytest

peer = pytest.importorskip("mmpose.codecs", exc_type=ImportError)

from pypose_ops.integrations import mmpose as ours  # noqa: E402

CONFIGS = Path(peer.__file__).parents[1] / ".mim" / "configs"
DOCS = Path(__file__).resolve().parents[2] / "docs" / "integrations.md"
LIFTING = {"ImagePoseLifting", "VideoPoseLifting", "MotionBERTLabel", "Hand3DHeatmap"}
ALL = set(ours.CLASSES) | LIFTING
SINGLE = {"MSRAHeatmap", "UDPHeatmap", "MegviiHeatmap", "RegressionLabel", "IntegralRegressionLabel", "SimCCLabel"}

pytestmark = pytest.mark.skipif(not CONFIGS.is_dir(), reason="mmpose is installed without its configs")


def uses():
    """How often the configs name each codec."""
    found = collections.Counter()
    for path in CONFIGS.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for word in node.keywords if isinstance(node, ast.Call) else ():
                kind = getattr(word.value, "value", None) or getattr(word.value, "id", None)
                if word.arg == "type" and kind in ALL:
                    found[kind] += 1
    return found


def settings():
    """The different arguments of each codec of one person."""
    found = {}

    def walk(value):
        if isinstance(value, dict) and value.get("type") in SINGLE:
            found[repr(sorted(value.items()))] = value
        elif isinstance(value, (dict, list)):
            for part in value.values() if isinstance(value, dict) else value:
                walk(part)

    for path in CONFIGS.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if any(name in text for name in SINGLE):
            variables = {}
            exec(compile(text, str(path), "exec"), variables)
            walk({name: value for name, value in variables.items() if not name.startswith("__")})
    return list(found.values())


def test_mmpose_has_no_other_codec():
    assert {name for name in peer.__all__ if name != "SimCC3DLabel"} == ALL - {"SimCC3DLabel"}


def test_every_use_is_served_or_left_out_as_documented():
    found = uses()
    text = DOCS.read_text(encoding="utf-8")
    table = {name: int(count) for name, count in re.findall(r"^\| `(\w+)` \| (\d+) \|", text, re.MULTILINE)}
    assert table == dict(found)
    served = sum(count for name, count in found.items() if name in ours.CLASSES)
    assert f"{served} of {sum(found.values())}" in text
    assert set(found) - set(ours.CLASSES) == LIFTING


def test_every_setting_gives_mmposes_targets():
    distinct = settings()
    assert len(distinct) >= 39
    random = np.random.default_rng(0)
    for setting in distinct:
        arguments = {k: v for k, v in setting.items() if k != "type"}
        theirs, mine = (getattr(m, setting["type"])(**arguments) for m in (peer, ours))
        span = np.array(setting["input_size"])
        keypoints = ((random.random((1, 9, 2)) * 1.2 - 0.1) * span).astype(np.float32)
        visible = random.integers(0, 2, (1, 9)).astype(np.float32)
        expected, actual = theirs.encode(keypoints.copy(), visible), mine.encode(keypoints, visible)
        assert actual.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(
                actual[name], value, rtol=0, atol=1e-5 * max(1, np.abs(value).max()), err_msg=f"{setting}: {name}"
            )
