"""Builds genhmr_jax/assets/viewer/three.min.js: the parts of three.js that the viewer page uses.

    python tools/build_viewer.py                           # needs npm; a few seconds
    python tools/build_viewer.py --out /some/folder

three.js and esbuild (both MIT) come from npm. Their versions are pinned, and so are the hashes that
npm checks the packages against. three.js ships no minified file, so esbuild makes one, without the
parts that the page does not use. The bundle is the same, byte for byte, on every machine.
"""

import argparse
import hashlib
import json
import shutil
import subprocess
import tempfile
from pathlib import Path

ASSETS = Path(__file__).resolve().parents[1] / "genhmr_jax/assets/viewer"
PACKAGES = {
    "three": (
        "0.187.0",
        "sha512-Qiu7R+Cmh8CstZsY1uJOSWnVlfo7ZtNLV7mF8Jltk3LB3AtDu9cRZlcnRKkAk8Y4z6KKw35z7Y7Urd7jWY8etA==",
    ),
    "esbuild": (
        "0.28.2",
        "sha512-HKVLS8dvII+xoKW9kmqxbRKrnWEXfJJr/FZhhJmiqIB0e053QNYFqOBouTMO/k5sID4MvCiUCvv8b9M4h32wIA==",
    ),
}
"""Name: version, and the hash of the package in npm's form."""
BUNDLE = "d7098ac758ab0dffb5c6e1bed5ad30f1e66777b72b5f73df54e811cd5714beb1"
"""SHA-256 of the bundle."""
NAMES = """
    Bone BufferAttribute BufferGeometry Camera Color CylinderGeometry DirectionalLight GridHelper
    Group HemisphereLight InstancedMesh Line LineBasicMaterial LineSegments Matrix4
    MeshBasicMaterial MeshStandardMaterial PerspectiveCamera Quaternion Scene Skeleton SkinnedMesh
    SphereGeometry Spherical SRGBColorSpace Vector3 WebGLRenderer
""".split()


def install(folder: Path) -> None:
    """Fetch the packages with npm, without running their scripts, and check their hashes."""
    pinned = {name: version for name, (version, _) in PACKAGES.items()}
    (folder / "package.json").write_text(json.dumps({"private": True, "dependencies": pinned}))
    command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund"]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    locked = json.loads((folder / "package-lock.json").read_text())["packages"]
    for name, (_, expected) in PACKAGES.items():
        if (found := locked[f"node_modules/{name}"]["integrity"]) != expected:
            raise SystemExit(f"{name}: the package has the hash {found}, not {expected}")


def bundle(folder: Path) -> bytes:
    """The bundle, a script that defines THREE."""
    entry = folder / "entry.js"
    controls = "three/examples/jsm/controls/OrbitControls.js"
    entry.write_text(
        f'export {{ {", ".join(NAMES)} }} from "three";\n'
        f'export {{ OrbitControls }} from "{controls}";\n'
    )
    options = "--bundle --minify --format=iife --global-name=THREE --target=es2020"
    command = ["node_modules/.bin/esbuild", entry.name, *options.split()]
    command += ["--legal-comments=inline", "--charset=ascii", "--log-level=warning"]
    return subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE).stdout


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ASSETS)
    out = parser.parse_args().out
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        install(folder)
        script = bundle(folder)
        if (digest := hashlib.sha256(script).hexdigest()) != BUNDLE:
            raise SystemExit(f"the bundle has the SHA-256 {digest}, not {BUNDLE}")
        (out / "three.min.js").write_bytes(script)
        shutil.copyfile(folder / "node_modules/three/LICENSE", out / "three.LICENSE.txt")
    print(f"{out / 'three.min.js'}: {len(script) / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
