"""A graph model of TensorFlow.js with MoveNet's names, and an interpreter for such graphs: both independent of ours.

``write(folder, width)`` makes one of random numbers; ``run(path, node, images)`` evaluates a node of any.
"""

import json
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

ROOT = "StatefulPartitionedCall/"
BODY = ROOT + "center_net_mobile_net_v2fpn_feature_extractor/model_1/"
BLOCKS = [(16, 1, 1, 1), (24, 2, 2, 6), (32, 3, 2, 6), (64, 4, 2, 6), (96, 3, 1, 6), (160, 3, 2, 6), (320, 1, 1, 6)]
HEADS = {"center_0": (3, 4, 1), "kpt_heatmap_0": (4, 5, 17), "kpt_regress_0": (5, 6, 34), "kpt_offset_0": (6, 7, 34)}


class Writer:
    def __init__(self):
        self.nodes, self.weights, self.random = [], [], np.random.default_rng(0)

    def add(self, name, op, inputs, **attributes):
        self.nodes.append({"name": name, "op": op, "input": inputs, "attr": attributes})
        return name

    def conv(self, name, op, source, shape, bias=True, act=None, stride=1):
        """The numbers keep the size of the signal; TensorFlow's order is height, width, inputs, outputs."""
        fan = shape[0] * shape[1] * (1 if "Depthwise" in op else shape[2])
        held = [(f"{name}/kernel", self.random.standard_normal(shape) * (2 / fan) ** 0.5)]
        if bias:
            held.append((f"{name}/bias", self.random.standard_normal(shape[2 if "Depthwise" in op else 3]) * 0.1))
        for key, values in held:
            self.add(key, "Const", [])
            self.weights.append((key, values.astype(np.float16)))
        fused = [text_of for text_of in ("BiasAdd" if bias else None, act) if text_of]
        return self.add(
            name, op, [source, *(key for key, _ in held)],
            strides={"list": {"i": ["1", str(stride), str(stride), "1"]}}, fused=fused,
        )  # fmt: skip

    def point(self, name, source, inputs, outputs, act=None):
        return self.conv(name, "_FusedConv2D", source, (1, 1, inputs, outputs), act=act)

    def separable(self, name, relu, source, inputs, outputs):
        x = self.conv(f"{name}/separable_conv2d/depthwise", "DepthwiseConv2dNative", source, (3, 3, inputs, 1), False)
        return self.point(relu, x, inputs, outputs, "Relu")


def write(folder):
    """MoveNet Lightning's graph up to its four heads, of random float16 numbers; the path of the json."""
    w = Writer()
    model, x = BODY + "model/", w.add("input", "Placeholder", [])
    x = w.conv(model + "Conv1_relu/Relu6", "_FusedConv2D", x, (3, 3, 3, 32), act="Relu6", stride=2)
    inputs, number, kept = 32, 0, {}
    for outputs, count, first, expand in BLOCKS:
        for n in range(count):
            name, start, wide = model + (f"block_{number}_" if number else "expanded_conv_"), x, inputs * expand
            if expand > 1:
                x = w.point(f"{name}expand_relu/Relu6", x, inputs, wide, "Relu6")
            stride = first if n == 0 else 1
            x = w.conv(
                f"{name}depthwise/depthwise",
                "FusedDepthwiseConv2dNative",
                x,
                (3, 3, wide, 1),
                act="Relu6",
                stride=stride,
            )
            x = w.point(f"{name}project_BN/FusedBatchNormV3", x, wide, outputs)
            if stride == 1 and inputs == outputs:
                x = w.add(f"{name}add/add", "AddV2", [start, x])
            inputs, number = outputs, number + 1
        kept[outputs] = x
    x = w.point(BODY + "conv2d/BiasAdd", w.point(model + "out_relu/Relu6", x, 320, 1280, "Relu6"), 1280, 64)
    for n, (wide, narrow) in enumerate(((64, 32), (32, 24), (24, 24))):
        end = f"_{n}" if n else ""
        up = w.add(f"{BODY}up_sampling2d{end}/resize/ResizeBilinear", "ResizeBilinear", [x])
        side = w.point(f"{BODY}conv2d_{n + 1}/BiasAdd", kept[wide], wide, wide)
        x = w.add(f"{BODY}tf.__operators__.add{end}/AddV2", "AddV2", [up, side])
        x = w.separable(f"{BODY}separable_conv2d{end}", f"{BODY}re_lu{end}/Relu", x, wide, narrow)
    for head, (first, last, maps) in HEADS.items():
        hidden = w.separable(f"{ROOT}{head}/separable_conv2d_{first}", f"{ROOT}{head}/re_lu_{first}/Relu", x, 24, 96)
        w.point(f"{ROOT}{head}/conv2d_{last}/BiasAdd", hidden, 96, maps)
    manifest = [
        {"name": key, "shape": v.shape, "dtype": "float32", "quantization": {"dtype": "float16"}}
        for key, v in w.weights
    ]
    (folder / "graph.bin").write_bytes(b"".join(values.tobytes() for _, values in w.weights))
    graph = {"modelTopology": {"node": w.nodes}, "weightsManifest": [{"paths": ["graph.bin"], "weights": manifest}]}
    path = folder / "graph.json"
    path.write_text(json.dumps(graph))
    return path


def run(path, wanted, images):
    """What nodes whose names begin so and end in BiasAdd give for ``(B, 3, H, W)``; in float64, as ``(B, C, h, w)``."""
    graph = json.loads(Path(path).read_text())
    nodes, constants = {n["name"]: n for n in graph["modelTopology"]["node"]}, {}
    for group in graph["weightsManifest"]:
        data, start = b"".join((Path(path).parent / p).read_bytes() for p in group["paths"]), 0
        for entry in group["weights"]:
            dtype = {"float16": "<f2"}.get(entry.get("quantization", {}).get("dtype"), "<f4")
            count = int(np.prod(entry["shape"]))
            values = np.frombuffer(data, dtype if entry["dtype"] == "float32" else "<i4", count, start)
            start += values.nbytes
            constants[entry["name"]] = torch.from_numpy(values.reshape(entry["shape"]).astype(np.float64))
    done = {}

    def value(name):
        if name in constants:
            return constants[name]
        if name not in done:
            node = nodes[name]
            is_input = node["op"] == "Placeholder" or name.endswith("/sub_1")  # the pixels, once normalised
            done[name] = images.double() if is_input else compute(node, [value(i) for i in node["input"]])
        return done[name]

    names = [n for n in nodes if n.startswith(ROOT + wanted) and n.endswith("BiasAdd") and "separable" not in n]
    return value(names[-1])


def compute(node, inputs):
    if node["op"] == "AddV2":
        return inputs[0] + inputs[1]
    if node["op"] == "ResizeBilinear":
        return F.interpolate(inputs[0], scale_factor=2, mode="bilinear", align_corners=False)
    x, kernel, *bias = inputs
    depthwise = "Depthwise" in node["op"]
    weight = kernel.permute((2, 3, 0, 1) if depthwise else (3, 2, 0, 1))
    stride, size = int(node["attr"]["strides"]["list"]["i"][1]), weight.shape[-1]
    pads = [max((-(-n // stride) - 1) * stride + size - n, 0) for n in (x.shape[3], x.shape[2])]
    x = F.pad(x, [part for n in pads for part in (n // 2, n - n // 2)])
    y = F.conv2d(x, weight, bias[0] if bias else None, stride, groups=x.shape[1] if depthwise else 1)
    act = activation(node["attr"])
    return y.clamp(0, 6) if act == "Relu6" else y.relu() if act == "Relu" else y


def activation(attributes):
    import base64

    if "fused_ops" in attributes:  # as TensorFlow.js writes it
        names = [base64.b64decode(s).decode() for s in attributes["fused_ops"].get("list", {}).get("s", [])]
    else:
        names = attributes.get("fused", [])
    return next((name for name in names if name.startswith("Relu")), None)
