"""Writes tests/support/detect_reference.json: the outputs of TensorFlow.js for a drawn figure.

Tests compare the networks with them.

  npm install --prefix FOLDER @tensorflow/tfjs-core@4.22.0 @tensorflow/tfjs-converter@4.22.0
  @tensorflow/tfjs-backend-cpu@4.22.0 NODE_PATH=FOLDER/node_modules python
  tools/eyes/make_reference.py TARBALL

TARBALL is that of tools/build_eyes.py. Needs node; takes a minute.
"""

import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "tests"))
from support.detect_figure import figure  # noqa: E402

KEPT = {
    "movenet-multipose": ["output_0"],
    "blazepose-full": ["ld_3d", "world_3d", "output_poseflag"],
}


def main(tarball: str) -> None:
    """Runs each shipped network and writes its rounded outputs."""
    reference = {}
    with tempfile.TemporaryDirectory() as name, tarfile.open(tarball) as archive:
        folder = Path(name)
        for network, outputs in KEPT.items():
            for suffix in ("json", "bin"):
                (folder / f"{network}.{suffix}").write_bytes(
                    archive.extractfile(f"package/models/{network}.{suffix}").read()
                )
            integers = network.startswith("movenet")
            image = figure(256)[None]
            (folder / "input").write_bytes(
                (
                    image.astype(np.int32)
                    if integers
                    else image.astype(np.float32) / np.float32(255)
                ).tobytes()
            )
            command = [
                "node",
                ROOT / "tools/eyes/reference.js",
                folder / f"{network}.json",
                folder / "input",
                "1,256,256,3",
            ]
            subprocess.run(
                [*command, "int32" if integers else "float32", folder / "output"], check=True
            )
            values = json.loads((folder / "output").read_text())
            reference[network] = {
                output: [float(f"{value:.7g}") for value in values[output]] for output in outputs
            }
    (ROOT / "tests" / "support" / "detect_reference.json").write_text(json.dumps(reference))


if __name__ == "__main__":
    main(*sys.argv[1:])
