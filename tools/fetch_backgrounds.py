"""Makes a folder of background pictures and their light for synthetic images; they are used in
training and never shipped.

    python tools/fetch_backgrounds.py --out runs/backgrounds [--views 20]

Source: the CC0 HDRI panoramas (Poly Haven) in the npm package @pmndrs/assets, fetched with `npm
pack`; each is looked into in random directions. Needs npm, and OpenEXR from PyPI.
"""

import argparse
import base64
import json
import pathlib
import re
import subprocess
import sys
import tarfile
import tempfile

import numpy as np
from PIL import Image

from genhmr_jax.data.synthetic.light import fibonacci_sphere, fit_irradiance
from genhmr_jax.io.atomic import atomic_path

PACKAGE = "@pmndrs/assets@1.7.0"


def fetch_archive(folder: pathlib.Path) -> pathlib.Path:
    """The package's tar file, fetched by npm into `folder`; ends the program with one line when
    that fails."""
    try:
        subprocess.run(
            ["npm", "pack", "--silent", PACKAGE],
            cwd=folder,
            check=True,
            capture_output=True,
            text=True,
        )
    except FileNotFoundError:
        sys.exit(
            f"npm is needed to fetch {PACKAGE}: install Node.js, or give the package's tar file "
            "with --archive"
        )
    except subprocess.CalledProcessError as error:
        sys.exit(f"npm pack {PACKAGE} failed: {error.stderr.strip()[-300:]}")
    return next(folder.glob("*.tgz"))


def read_panoramas(tarball: pathlib.Path) -> dict[str, np.ndarray]:
    """The equirectangular panoramas of the package: name -> float32 (H, W, 3), linear light."""
    import OpenEXR

    panoramas = {}
    with tarfile.open(tarball) as archive, tempfile.TemporaryDirectory() as folder:
        for member in archive.getmembers():
            if not re.fullmatch(r"package/hdri/\w+\.exr\.js", member.name):
                continue
            text = archive.extractfile(member).read().decode()
            file = pathlib.Path(folder) / "panorama.exr"
            file.write_bytes(
                base64.b64decode(re.search(r"base64,([A-Za-z0-9+/=]+)", text).group(1))
            )
            channels = OpenEXR.File(str(file)).channels()
            pixels = (
                channels["RGB"].pixels if "RGB" in channels else channels["RGBA"].pixels[..., :3]
            )
            # Resampling left negative radiance round lamps and the sun.
            panoramas[pathlib.Path(member.name).name.removesuffix(".exr.js")] = np.maximum(
                np.asarray(pixels, np.float32), 0
            )
    if not panoramas:
        sys.exit(f"{tarball}: holds no panoramas; the tar file of {PACKAGE} is expected")
    return panoramas


def look(panorama: np.ndarray, yaw: float, pitch: float, fov: float, size: int) -> np.ndarray:
    """A perspective view (size, size, 3) uint8 of a panorama. Exposure by the view's own
    brightness, gamma 2.2.

    Angles in radians: yaw from the panorama's first column to the right, pitch upwards, fov over
    the side.
    """
    height, width = panorama.shape[:2]
    x, y = np.meshgrid(*[(np.arange(size) + 0.5) / size * 2 - 1] * 2)
    ray = np.stack([x * np.tan(fov / 2), y * np.tan(fov / 2), np.ones_like(x)], -1)
    ray /= np.linalg.norm(ray, axis=-1, keepdims=True)
    c, s = np.cos(pitch), np.sin(pitch)
    ray = ray @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]]).T
    longitude, latitude = (
        np.arctan2(ray[..., 0], ray[..., 2]) + yaw,
        np.arcsin(np.clip(ray[..., 1], -1, 1)),
    )
    column = (longitude / (2 * np.pi) * width) % width
    row = np.clip((latitude / np.pi + 0.5) * height - 0.5, 0, height - 1.001)
    c0, r0 = np.floor(column).astype(int), np.floor(row).astype(int)
    u, v = (column - c0)[..., None], (row - r0)[..., None]
    at = lambda r, c: panorama[np.minimum(r, height - 1), c % width]
    view = (at(r0, c0) * (1 - u) + at(r0, c0 + 1) * u) * (1 - v) + (
        at(r0 + 1, c0) * (1 - u) + at(r0 + 1, c0 + 1) * u
    ) * v
    view = view / (np.quantile(view, 0.9) + 1e-6) * 0.75
    return (np.clip(view, 0, 1) ** (1 / 2.2) * 255).astype(np.uint8)


def light_of(panorama: np.ndarray, yaw: float, pitch: float) -> np.ndarray:
    """The irradiance (9, 3) of `fit_irradiance` in the camera coordinates of a view, in the
    panorama's own unit."""
    height, width = panorama.shape[:2]
    ray = fibonacci_sphere(4096)  # camera coordinates
    c, s = np.cos(pitch), np.sin(pitch)
    turned = ray @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]]).T
    longitude, latitude = (
        np.arctan2(turned[:, 0], turned[:, 2]) + yaw,
        np.arcsin(np.clip(turned[:, 1], -1, 1)),
    )
    row = np.clip((latitude / np.pi + 0.5) * height, 0, height - 1).astype(int)
    return fit_irradiance(ray, panorama[row, (longitude / (2 * np.pi) * width % width).astype(int)])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Make a folder of background pictures.")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--views", type=int, default=20, help="pictures of each panorama")
    parser.add_argument("--size", type=int, default=512, help="px of a picture's side")
    parser.add_argument(
        "--archive", type=pathlib.Path, help="the npm package's tar file, in place of fetching it"
    )
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        panoramas = read_panoramas(args.archive or fetch_archive(pathlib.Path(folder)))
    lights = {}
    for name, panorama in panoramas.items():
        for view in range(args.views):
            angles = (
                rng.uniform(-np.pi, np.pi),
                rng.normal(0, 0.15),
                np.radians(rng.uniform(45, 100)),
            )
            lights[f"{name}_{view:02d}.jpg"] = np.round(light_of(panorama, *angles[:2]), 5).tolist()
            with atomic_path(args.out / f"{name}_{view:02d}.jpg") as temporary:
                Image.fromarray(look(panorama, *angles, args.size)).save(temporary, quality=90)
    with atomic_path(args.out / "lights.json") as temporary:
        temporary.write_text(json.dumps(lights))
    print(f"{len(panoramas) * args.views} pictures of {len(panoramas)} panoramas in {args.out}")


if __name__ == "__main__":
    main()
