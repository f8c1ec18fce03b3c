"""What TensorRT 10.0 takes by the operator table of its parser (onnx-tensorrt, docs/operators.md).

TensorRT has never run these files: this compares the table, no more.
"""

import onnx

OPSETS = range(9, 21)
# Of float32, int64, bool and uint8, the types of each operator that the files have.
TYPES = {
    "fi": "Abs Add ArgMax Div Equal Greater GreaterOrEqual IsNaN Less LessOrEqual Max Min Mod Mul Neg Pad Range "
    "ReduceMax ReduceMin ReduceProd ReduceSum ScatterElements ScatterND Sign Sub TopK",
    "b": "And Not Or",
    "fibu": "Cast",
    "f": "Ceil Clip Conv CumSum Exp Floor IsInf Log MatMul MaxPool NonZero Pow Round Softmax Sqrt",
    "fib": "Concat Constant Expand Gather GatherElements GatherND Identity Loop Reshape Shape Slice Split Squeeze Tile "
    "Transpose Unsqueeze Where",
    "fb": "ConstantOfShape",
}
TYPES = {name: types for types, names in TYPES.items() for name in names.split()}
TYPES["Clip"] = "fi"  # the table has no integers; the parser's source (onnxOpImporters.cpp) takes them
LETTERS = {onnx.TensorProto.FLOAT: "f", onnx.TensorProto.INT64: "i", onnx.TensorProto.BOOL: "b"}
LETTERS |= {onnx.TensorProto.UINT8: "u", onnx.TensorProto.FLOAT16: "f", onnx.TensorProto.BFLOAT16: "f"}
FIXED = {
    "ReduceMax": 1,
    "ReduceMin": 1,
    "ReduceProd": 1,
    "ReduceSum": 1,
    "Squeeze": 1,
    "Unsqueeze": 1,
    "Slice": 3,
    "TopK": 1,
}
MOST_OF_TOPK = 3840


def outside(model):
    """What is not in the table: operators, operators of a type, and sizes that must be constants."""
    model = onnx.shape_inference.infer_shapes(model)
    return set(_outside(model.graph, {}, {}))


def _outside(graph, types, constants):
    types, constants = dict(types), dict(constants)
    for value in (*graph.input, *graph.value_info, *graph.output):
        types[value.name] = value.type.tensor_type.elem_type
    for tensor in graph.initializer:
        types[tensor.name], constants[tensor.name] = tensor.data_type, tensor
    for node in graph.node:
        if node.op_type == "Constant":
            constants[node.output[0]] = next(a.t for a in node.attribute if a.name == "value")
            continue
        attributes = {a.name: a for a in node.attribute}
        data = node.input[1 if node.op_type == "Where" else 0] if node.input else ""
        letter = LETTERS.get(types.get(data, 0), "")
        if node.op_type not in TYPES:
            yield node.op_type
        elif letter not in TYPES[node.op_type]:
            yield f"{node.op_type} of {letter}"
        at = FIXED.get(node.op_type)
        if at is not None and len(node.input) > at and node.input[at] not in constants:
            yield f"{node.op_type} with {node.input[at]} not constant"
        elif node.op_type == "TopK" and onnx.numpy_helper.to_array(constants[node.input[1]]).max() >= MOST_OF_TOPK:
            yield "TopK of too many"
        if "reduction" in attributes and attributes["reduction"].s != b"none":
            yield f"{node.op_type} with reduction"
        for attribute in attributes.values():
            if attribute.HasField("g"):
                yield from _outside(attribute.g, types, constants)
