"""Writes tests/support/hands_reference.npz: the outputs of TensorFlow Lite for two drawn images.

Tests compare the hand networks with them.

  pip install ai-edge-litert tflite==2.18.0
  python tools/eyes/make_hands_reference.py TARBALL

TARBALL is that of tools/build_hands.py. Takes seconds.
"""

import sys
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter

ROOT = Path(__file__).parents[2]
sys.path += [str(ROOT / "tests"), str(ROOT / "tools")]
from build_hands import OUTPUTS, SHIPPED, read_model  # noqa: E402

from support.hand_images import network_inputs  # noqa: E402

SIZES = {"palmdetection": 192, "handlandmark": 224}
EVERY = 16  # of the palm detector's boxes, which keeps the file small


def main(tarball: str) -> None:
    """Runs each shipped network and writes its outputs, one row for each image."""
    reference = {}
    for network in SHIPPED:
        kind = network.split("-")[0]
        interpreter = Interpreter(model_content=read_model(Path(tarball), network))
        interpreter.allocate_tensors()
        (given,) = interpreter.get_input_details()
        rows: dict[str, list[np.ndarray]] = {name: [] for name in OUTPUTS[kind]}
        for image in network_inputs(SIZES[kind]):
            interpreter.set_tensor(given["index"], image[None])
            interpreter.invoke()
            details = interpreter.get_output_details()
            for name, detail in zip(OUTPUTS[kind], details, strict=True):
                rows[name].append(interpreter.get_tensor(detail["index"])[0])
        for name, values in rows.items():
            stacked = np.stack(values)
            reference[f"{kind}.{name}"] = stacked[:, ::EVERY] if name == "boxes" else stacked
    np.savez_compressed(ROOT / "tests" / "support" / "hands_reference.npz", **reference)


if __name__ == "__main__":
    main(*sys.argv[1:])
