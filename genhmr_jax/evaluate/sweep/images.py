"""A few rendered images with their features, for tiny sweeps: both splits in one command.

    python -m genhmr_jax.evaluate.sweep.images --out runs/images --poses made-up \\
        --train 16 --val 8 --encoder blazepose_full
"""

import argparse
import pathlib
import sys

from genhmr_jax.io.errors import InputError
from genhmr_jax.io.paths import FlagError, path_flag


def write_images(folder: pathlib.Path, poses: str, train: int, val: int, encoder: str) -> None:
    """Render images of corpus poses, and write their features to FOLDER/train and FOLDER/val.

    Raises:
      InputError: the corpus is missing, or the detector found nobody.
    """
    from genhmr_jax.data import features
    from genhmr_jax.data.synthetic.write import write_split

    for split, count in (("train", train), ("val", val)):
        write_split(folder / "images", split, count, poses)
        if not features.compute(folder / "images", folder, split, encoder):
            problem = f"the detector found nobody in {count} images of {split}"
            raise InputError(folder, problem, "render more images")


def main(argv: list[str] | None = None) -> int:
    """Run the command. Returns 0, or 1 after one line on stderr."""
    parser = argparse.ArgumentParser(
        prog="python -m genhmr_jax.evaluate.sweep.images",
        description="Render a few images and compute their features.",
    )
    parser.add_argument("--out", type=path_flag, required=True)
    corpus = "pose corpus (npz), or made-up"
    parser.add_argument("--poses", type=path_flag, required=True, help=corpus)
    parser.add_argument("--train", type=int, default=16, help="images for training")
    parser.add_argument("--val", type=int, default=8, help="images for validation")
    parser.add_argument("--encoder", default="blazepose_full")
    try:
        args = parser.parse_args(argv)
        write_images(pathlib.Path(args.out), args.poses, args.train, args.val, args.encoder)
    except (FlagError, InputError) as error:
        print(f"genhmr_jax.evaluate.sweep.images: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
